import CspEdgeCore
import CspEdgeKit
import XCTest

final class SelfTestTests: BundleTestCase {
    /// The stored pixels of each file, by its bytes: a decoder that makes no mistake.
    private func stored(_ bundle: ModelBundle) throws -> [Data: RGBImage] {
        var images: [Data: RGBImage] = [:]
        for image in bundle.manifest.goldenImages { images[try bundle.read(image.file)] = try bundle.goldenRGB(image) }
        return images
    }

    func testADecoderThatGivesTheStoredPixelsPasses() async throws {
        let bundle = try bundle()
        let images = try stored(bundle)
        let classifier = try await Classifier(bundle: bundle, runtime: StoredAnswers(bundle: bundle))
        let rows = try await classifier.selfTest { try XCTUnwrap(images[$0]) }
        XCTAssertEqual(rows.map(\.file), bundle.manifest.goldenImages.map(\.file))
        for row in rows {
            XCTAssertTrue(row.passed, row.file)
            XCTAssertEqual(row.decoding?.meanDifference, 0)
            XCTAssertEqual(row.distances.map(\.largest), [0])
        }
        XCTAssertTrue(rows.contains { $0.decoding?.sameClass == true }, "no class leads by enough to be compared")
    }

    func testADecoderThatIsOffByALevelFailsForPNG() async throws {
        let bundle = try bundle()
        let images = try stored(bundle)
        let classifier = try await Classifier(bundle: bundle, runtime: StoredAnswers(bundle: bundle))
        let rows = try await classifier.selfTest { file in
            let image = try XCTUnwrap(images[file])
            let pixels = image.pixels.map { $0 == 255 ? 254 : $0 + 1 }
            return try RGBImage(width: image.width, height: image.height, pixels: pixels)
        }
        for row in rows {
            XCTAssertEqual(row.decoding?.meanDifference, 1)
            XCTAssertEqual(row.passed, !row.file.hasSuffix(".png") && row.decoding?.sameClass != false, row.file)
        }
        XCTAssertTrue(rows.contains { $0.decoding?.sameClass == false }, "other pixels get the first image's class")
    }
}
