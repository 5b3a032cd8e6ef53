import CspEdgeCore
import XCTest

final class BundleStoreTests: BundleTestCase {
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
        let accepted = try await [one, two]
        for report in accepted.map(\.report) {
            XCTAssertEqual(report.largest, [bundle.manifest.artifacts[0].label: 0])
        }
        let installed = try await store.installed()
        XCTAssertEqual(installed?.manifest, bundle.manifest)
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: root.path).count, 2)
    }
}
