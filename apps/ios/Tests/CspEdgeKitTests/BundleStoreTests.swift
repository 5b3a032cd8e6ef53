import CspEdgeCore
import CspEdgeKit
import XCTest

final class BundleStoreTests: BundleTestCase {
    /// Gives the stored answers, later: two bundles are then being accepted at once.
    private struct StoredAnswers: ModelRuntime {
        let bundle: ModelBundle

        func runs(_ artifact: Artifact) -> Bool { true }

        func open(_ artifact: Artifact, of manifest: Manifest, at url: URL) async throws -> any ModelSession {
            try await Task.sleep(for: .milliseconds(50))
            var answers: [[Float]: [[Float]]] = [:]
            let rows = try zip(artifact.golden, manifest.outputs).map { try bundle.goldenRows($0, $1) }
            for (index, image) in manifest.goldenImages.enumerated() {
                answers[manifest.preprocess.input(try bundle.goldenTensor(image))] = rows.map { $0[index] }
            }
            return Session(answers: answers)
        }

        struct Session: ModelSession {
            let answers: [[Float]: [[Float]]]

            func run(_ input: [Float]) throws -> [[Float]] { answers[input] ?? [] }
        }
    }

    func testTwoThatAreAcceptedAtOnceDoNotHarmEachOther() async throws {
        let root = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        addTeardownBlock { try? FileManager.default.removeItem(at: root) }
        let bundle = try bundle()
        let folder = try folder()
        let runtime = StoredAnswers(bundle: bundle)
        let key = try VerifyingKey(pem: try key())
        let store = BundleStore(root: root, name: bundle.manifest.name, key: key)
        async let one = store.accept(folder, runtime: runtime)
        async let two = store.accept(folder, runtime: runtime)
        for accepted in try await [one, two] {
            XCTAssertEqual(accepted.report.largest, [bundle.manifest.artifacts[0].label: 0])
        }
        let installed = try await store.installed()
        XCTAssertEqual(installed?.manifest, bundle.manifest)
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: root.path).count, 2)
    }
}
