import CspEdgeCore
import Foundation
import XCTest

/// Replays the bundle that CSPEDGE_BUNDLE names (with CSPEDGE_KEY, its public key), through the path an app takes.
final class GoldenTests: XCTestCase {
    private func bundle() throws -> ModelBundle {
        let environment = ProcessInfo.processInfo.environment
        guard let folder = environment["CSPEDGE_BUNDLE"] else {
            throw XCTSkip("CSPEDGE_BUNDLE names no bundle; make one with `cspedge bundle`")
        }
        let key = try environment["CSPEDGE_KEY"].map {
            try VerifyingKey(pem: String(contentsOfFile: $0, encoding: .utf8))
        }
        return try ModelBundle(folder: URL(fileURLWithPath: folder), key: key)
    }

    func testTheResizeAndCropGiveThePipelinesTensors() throws {
        let bundle = try bundle()
        XCTAssertGreaterThanOrEqual(bundle.manifest.goldenImages.count, 8)
        for image in bundle.manifest.goldenImages {
            let tensor = try bundle.manifest.preprocess.tensor(try bundle.goldenRGB(image))
            XCTAssertEqual(tensor, try bundle.goldenTensor(image), image.file)
        }
    }

    func testEveryArtifactLiesThereWithItsBytes() throws {
        let bundle = try bundle()
        for artifact in bundle.manifest.artifacts {
            XCTAssertTrue(FileManager.default.fileExists(atPath: try bundle.artifactURL(artifact).path), artifact.label)
        }
        XCTAssertEqual(try bundle.labels().count, bundle.manifest.labels == nil ? 0 : bundle.manifest.numClasses)
    }
}
