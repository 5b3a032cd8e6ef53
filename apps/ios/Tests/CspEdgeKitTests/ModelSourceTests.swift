import CspEdgeCore
import CspEdgeKit
import XCTest

final class ModelSourceTests: BundleTestCase {
    private let files = FileManager.default
    private let nothing = Runtimes([])
    private var root = URL(fileURLWithPath: "/")
    private var resources: URL { root.appendingPathComponent("Resources") }

    override func setUpWithError() throws {
        root = files.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try files.createDirectory(at: resources, withIntermediateDirectories: true)
        try Data(try key().utf8).write(to: resources.appendingPathComponent("public.pem"))
    }

    override func tearDownWithError() throws {
        if files.fileExists(atPath: resources.path) { try files.removeItem(at: root) }
    }

    private func source() throws -> ModelSource { try ModelSource(resources: resources, support: root) }

    private func deliver() throws {
        let delivery = ["name": try bundle().manifest.name, "assetPackID": "models", "path": "cspedge/models"]
        try JSONEncoder().encode(delivery).write(to: resources.appendingPathComponent("delivery.json"))
    }

    func testTheBundleInTheAppIsOpenedAndItsBytesAreChecked() async throws {
        XCTAssertThrowsError(try source()) { XCTAssertTrue($0 is KitError, "\($0)") }
        let place = resources.appendingPathComponent("models")
        try files.copyItem(at: try folder(), to: place)
        let opened = try await source().open(runtime: nothing) { _ in throw CancellationError() }
        XCTAssertEqual(opened.bundle.folder.lastPathComponent, "models")
        XCTAssertTrue(opened.bundle.vouched)
        XCTAssertNil(opened.notTaken)
        try Data("0\n".utf8).write(to: place.appendingPathComponent("labels.txt"))
        do {
            _ = try await source().open(runtime: nothing) { _ in throw CancellationError() }
            XCTFail("a changed file was taken")
        } catch let refusal as Refusal { XCTAssertEqual(refusal.kind, .fileChanged) }
    }

    func testADeliveredBundleIsAcceptedOnceAndKeptWhenTheNextOneFails() async throws {
        try deliver()
        let good = try folder()
        do {
            _ = try await source().open(runtime: nothing) { _ in throw CancellationError() }
            XCTFail("there is nothing yet")
        } catch is CancellationError {}
        let first = try await source().open(runtime: nothing) { _ in good }
        XCTAssertNil(first.notTaken)
        XCTAssertTrue(first.bundle.folder.path.hasPrefix(root.path), "a delivered bundle is copied into the store")
        // the same bundle is not taken again, and the place stays
        let second = try await source().open(runtime: nothing) { _ in good }
        XCTAssertEqual(second.bundle.folder.lastPathComponent, first.bundle.folder.lastPathComponent)
        // neither a failed download nor a damaged pack changes what is in force
        let damaged = root.appendingPathComponent("damaged")
        try files.copyItem(at: good, to: damaged)
        try Data("{}".utf8).write(to: damaged.appendingPathComponent("manifest.json"))
        for fetch in [{ throw CancellationError() }, { damaged }] as [@Sendable () throws -> URL] {
            let kept = try await source().open(runtime: nothing) { _ in try fetch() }
            XCTAssertEqual(kept.bundle.folder.lastPathComponent, first.bundle.folder.lastPathComponent)
            XCTAssertNotNil(kept.notTaken)
        }
        // what was damaged since is taken again
        try files.removeItem(at: first.bundle.folder.appendingPathComponent("labels.txt"))
        let repaired = try await source().open(runtime: nothing) { _ in good }
        XCTAssertNotEqual(repaired.bundle.folder.lastPathComponent, first.bundle.folder.lastPathComponent)
        XCTAssertNil(repaired.notTaken)
    }

    func testADeliveryThatSaysNothingIsAnError() throws {
        try Data("{}".utf8).write(to: resources.appendingPathComponent("delivery.json"))
        XCTAssertThrowsError(try source()) { XCTAssertTrue($0 is KitError, "\($0)") }
    }

    func testNoArtifactThatRunsIsAnErrorThatNamesThem() async throws {
        let bundle = try bundle()
        do {
            _ = try await Classifier(bundle: bundle, runtime: nothing)
            XCTFail("nothing runs here")
        } catch let error as KitError {
            XCTAssertEqual(error, .nothingRuns(bundle.manifest.artifacts.map(\.label)))
        }
    }
}
