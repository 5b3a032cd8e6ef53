import CspEdgeCore
import CspEdgeKit
import CspEdgeModels
import XCTest

/// golden/ of the app's own bundle through the path that the app takes, on a simulator or a device.
final class GoldenReplayTests: XCTestCase {
    func testEveryArtifactOfTheAppPassesItsGoldenImages() async throws {
        let bundle = try await bundle()
        let artifacts = Classifier.choices(bundle.manifest, CspEdgeModels.runtime)
        XCTAssertFalse(artifacts.isEmpty, "no artifact runs on this device")
        for artifact in artifacts {
            let classifier = try await Classifier(
                bundle: bundle, runtime: CspEdgeModels.runtime, artifact: artifact.label)
            let rows = try await classifier.selfTest()
            XCTAssertGreaterThanOrEqual(rows.count, 8)
            for row in rows { XCTAssertTrue(row.passed, "\(artifact.label): \(row)") }
        }
    }

    func testAnImageFileGetsLabelsWithProbabilities() async throws {
        let bundle = try await bundle()
        let classifier = try await Classifier(bundle: bundle, runtime: CspEdgeModels.runtime)
        let image = try XCTUnwrap(bundle.manifest.goldenImages.first)
        let answer = try await classifier.classify(try bundle.read(image.file))
        XCTAssertEqual(answer.outputs.count, bundle.manifest.outputs.count)
        if bundle.manifest.outputs.contains(where: { $0.values == "logits" }) {
            XCTAssertEqual(answer.top.count, min(5, bundle.manifest.numClasses))
            XCTAssertLessThanOrEqual(answer.top.map(\.probability).reduce(0, +), 1 + 1e-9)
        }
    }

    private func bundle() async throws -> ModelBundle {
        do {
            return try await CspEdgeModels.open().bundle
        } catch let error as KitError {
            guard case .modelsMissing(let what) = error else { throw error }
            throw XCTSkip("\(what); make the project with `cspedge bundle --app ios`")
        }
    }
}
