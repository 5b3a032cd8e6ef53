/// A bundle's version: three integers, compared number by number.
public struct Version: Comparable, Hashable, Sendable, CustomStringConvertible {
    public let major: Int
    public let minor: Int
    public let patch: Int

    public init(major: Int, minor: Int, patch: Int) {
        self.major = major
        self.minor = minor
        self.patch = patch
    }

    /// From `MAJOR.MINOR.PATCH`, each below 10^9 and without leading zeros; UsageError for another form.
    public init(_ text: String) throws {
        let parts = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).map(Array.init)
        let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
        let sound = parts.allSatisfy { part in
            (1...9).contains(part.count) && part.allSatisfy(digits.contains)
                && (part.count == 1 || part.first != UInt8(ascii: "0"))
        }
        let numbers = parts.compactMap { Int(String(decoding: $0, as: UTF8.self)) }
        guard sound, numbers.count == 3 else {
            throw UsageError("'\(text)' is no version; MAJOR.MINOR.PATCH is needed")
        }
        self.init(major: numbers[0], minor: numbers[1], patch: numbers[2])
    }

    public static func < (left: Version, right: Version) -> Bool {
        (left.major, left.minor, left.patch) < (right.major, right.minor, right.patch)
    }

    public var description: String { "\(major).\(minor).\(patch)" }
}
