import CspEdgeCore
import XCTest

final class CoreTests: XCTestCase {
    func testSha256OfKnownTexts() {
        // FIPS 180-4, the examples of NIST
        XCTAssertEqual(sha256(Array("abc".utf8)), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        XCTAssertEqual(sha256([UInt8]()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    }

    func testPathsThatMayNotStandInABundle() {
        for path in [
            "/a", "../a", "a/../b", "a//b", "a/", ".git/config", "a/.b", "a.", "-a", "a\\b", "C:a", "é", "a b", "",
        ] {
            XCTAssertFalse(isSafePath(path), path)
        }
        for path in ["a", "a/b-c_d.e", "_a", "a-", "0/1.png"] { XCTAssertTrue(isSafePath(path), path) }
        XCTAssertFalse(isSafePath(String(repeating: "a", count: 241)))
    }

    func testVersionsAreComparedNumberByNumber() throws {
        XCTAssertLessThan(try Version("1.9.0"), try Version("1.10.0"))
        for text in ["1.0", "01.0.0", "1.0.0.0", "1.0.-1", "1.0.1000000000", "1.0.0\n", "1..0"] {
            XCTAssertThrowsError(try Version(text), text)
        }
    }

    func testOfEqualLogitsTheLowerIndexComesFirst() throws {
        let ranked = try topK([0, 2, 2, -1], labels: ["a", "b", "c", "d"], count: 3)
        XCTAssertEqual(ranked.map(\.label), ["b", "c", "a"])
        XCTAssertEqual(try softmax([1000, 0]).reduce(0, +), 1)
        XCTAssertThrowsError(try topK([.nan], labels: []))
    }
}
