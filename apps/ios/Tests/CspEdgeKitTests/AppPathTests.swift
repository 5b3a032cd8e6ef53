// On Apple's systems: golden/ through the path that an app takes, with Core ML and ImageIO themselves.
#if canImport(CoreML) && canImport(ImageIO)
    import CoreML
    import CspEdgeCore
    import CspEdgeKit
    import XCTest

    final class AppPathTests: BundleTestCase {
        private func caches() throws -> URL {
            let caches = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
            addTeardownBlock { try? FileManager.default.removeItem(at: caches) }
            return caches
        }

        func testGoldenThroughTheAppPathOnEveryArtifact() async throws {
            let bundle = try bundle()
            let runtime = Runtimes([CoreMLRuntime(caches: try caches())])
            let choices = Classifier.choices(bundle.manifest, runtime)
            if choices.isEmpty { throw XCTSkip("the bundle has no artifact for Core ML on this system") }
            for artifact in choices {
                let classifier = try await Classifier(bundle: bundle, runtime: runtime, artifact: artifact.label)
                for row in try await classifier.selfTest() {
                    XCTAssertTrue(row.passed, "\(artifact.label), \(row)")
                }
            }
        }

        func testTheSecondOpeningUsesTheCompiledModel() async throws {
            let bundle = try bundle()
            let caches = try caches()
            let runtime = Runtimes([CoreMLRuntime(caches: caches)])
            if Classifier.choices(bundle.manifest, runtime).isEmpty {
                throw XCTSkip("the bundle has no artifact for Core ML on this system")
            }
            _ = try await Classifier(bundle: bundle, runtime: runtime)
            let folder = caches.appendingPathComponent(bundle.manifest.name)
            let first = try FileManager.default.contentsOfDirectory(atPath: folder.path)
            _ = try await Classifier(bundle: bundle, runtime: runtime)
            XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: folder.path), first)
            XCTAssertEqual(first.count, 1)
        }

        func testAFileThatIsNoImageIsRefusedWithASentence() throws {
            let decoder = ImageDecoder(try bundle().manifest.preprocess)
            XCTAssertThrowsError(try decoder.decode(Data("no image".utf8))) { XCTAssertTrue($0 is KitError, "\($0)") }
        }
    }
#endif
