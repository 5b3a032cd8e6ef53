import XCTest

@testable import CspEdgeKit

final class ArtifactCacheTests: XCTestCase {
    private let files = FileManager.default
    private var folder = URL(fileURLWithPath: "/")

    override func setUpWithError() throws {
        folder = files.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try files.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws { try files.removeItem(at: folder) }

    /// Makes a folder with one file, as a compiler does, in a place of its own.
    private static func make(_ text: String) -> @Sendable () async throws -> URL {
        return {
            let made = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
            try FileManager.default.createDirectory(at: made, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: made.appendingPathComponent("model"))
            return made
        }
    }

    private func text(_ place: URL) throws -> String {
        try String(contentsOf: place.appendingPathComponent("model"), encoding: .utf8)
    }

    func testAFolderIsMadeOnceAndMadeAgainOnAnotherSystem() async throws {
        let cache = ArtifactCache(root: folder, system: "Version 17.0 (Build 21A329)")
        let first = try await cache.folder("aa", make: Self.make("one"))
        let second = try await cache.folder("aa", make: Self.make("two"))
        XCTAssertEqual(first, second)
        XCTAssertEqual(try text(second), "one")
        let newer = ArtifactCache(root: folder, system: "Version 18.0 (Build 22A3354)")
        let third = try await newer.folder("aa", make: Self.make("three"))
        XCTAssertEqual(try text(third), "three")
    }

    func testTwoCallsAtOnceGiveOneFolder() async throws {
        let cache = ArtifactCache(root: folder, system: "1")
        async let one = cache.folder("aa", make: Self.make("one"))
        async let two = cache.folder("aa", make: Self.make("two"))
        let places = try await [one, two]
        XCTAssertEqual(Set(places).count, 1)
        XCTAssertEqual(try files.contentsOfDirectory(atPath: folder.path), ["aa-1"])
    }

    func testWhatFailsLeavesNothingAndStaleOnesGo() async throws {
        struct Failure: Error {}
        let cache = ArtifactCache(root: folder, system: "1")
        do {
            _ = try await cache.folder("aa") { throw Failure() }
            XCTFail("it should have failed")
        } catch is Failure {}
        XCTAssertEqual(try files.contentsOfDirectory(atPath: folder.path), [])
        for digest in ["aa", "bb"] { _ = try await cache.folder(digest, make: Self.make(digest)) }
        try files.createDirectory(
            at: folder.appendingPathComponent(".staging-killed"), withIntermediateDirectories: true)
        try await cache.removeAll(but: ["bb"])
        XCTAssertEqual(try files.contentsOfDirectory(atPath: folder.path), ["bb-1"])
        try await cache.remove("bb")
        let again = try await cache.folder("bb", make: Self.make("again"))
        XCTAssertEqual(try text(again), "again")
    }
}
