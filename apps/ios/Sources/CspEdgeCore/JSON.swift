import Foundation

/// A JSON value.
package enum JSONValue: Equatable, Sendable {
    case object([String: JSONValue])
    case array([JSONValue])
    case string(String)
    case number(Double)
    case bool(Bool)
    case null

    package subscript(name: String) -> JSONValue? {
        if case .object(let fields) = self { fields[name] } else { nil }
    }

    package var string: String? {
        if case .string(let value) = self { value } else { nil }
    }

    package var number: Double? {
        if case .number(let value) = self { value } else { nil }
    }

    package var array: [JSONValue]? {
        if case .array(let items) = self { items } else { nil }
    }

    package var fields: [String: JSONValue]? {
        if case .object(let fields) = self { fields } else { nil }
    }

    package var isInteger: Bool {
        if case .number(let value) = self { value == value.rounded() } else { false }
    }
}

package struct JSONError: Error, CustomStringConvertible {
    package let description: String
}

/// Parses UTF-8 bytes as JSON (RFC 8259), nothing more: no doubled keys, no byte order mark, no NaN, no number beyond a
/// double, nothing after the value. Foundation's parsers keep one of two equal keys in silence.
package func parseJSON(_ bytes: [UInt8]) throws -> JSONValue {
    guard String(bytes: bytes, encoding: .utf8) != nil else { throw JSONError(description: "it is not UTF-8") }
    var parser = JSONParser(bytes: bytes)
    return try parser.document()
}

private struct JSONParser {
    private static let maxDepth = 64
    let bytes: [UInt8]
    var at = 0

    init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    mutating func document() throws -> JSONValue {
        let result = try value(0)
        space()
        if at < bytes.count { throw fail("something follows the value") }
        return result
    }

    private mutating func value(_ depth: Int) throws -> JSONValue {
        if depth > Self.maxDepth { throw fail("it is nested deeper than \(Self.maxDepth) levels") }
        space()
        switch try peek() {
        case UInt8(ascii: "{"): return try members(depth)
        case UInt8(ascii: "["): return try elements(depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func members(_ depth: Int) throws -> JSONValue {
        var fields: [String: JSONValue] = [:]
        at += 1
        space()
        if skip("}") { return .object(fields) }
        repeat {
            space()
            if try peek() != UInt8(ascii: "\"") { throw fail("a key is expected") }
            let key = try string()
            space()
            if !skip(":") { throw fail("':' is expected after the key '\(key)'") }
            if fields.updateValue(try value(depth + 1), forKey: key) != nil {
                throw fail("the key '\(key)' stands there twice")
            }
            space()
        } while skip(",")
        if !skip("}") { throw fail("',' or '}' is expected") }
        return .object(fields)
    }

    private mutating func elements(_ depth: Int) throws -> JSONValue {
        var items: [JSONValue] = []
        at += 1
        space()
        if skip("]") { return .array(items) }
        repeat {
            items.append(try value(depth + 1))
            space()
        } while skip(",")
        if !skip("]") { throw fail("',' or ']' is expected") }
        return .array(items)
    }

    private mutating func string() throws -> String {
        var units: [UInt16] = []
        var plain: [UInt8] = []
        func flush() { units.append(contentsOf: String(decoding: plain, as: UTF8.self).utf16) }
        at += 1
        while true {
            let byte = try peek()
            at += 1
            switch byte {
            case UInt8(ascii: "\""):
                flush()
                guard let text = text(units) else { throw fail("half a character") }
                return text
            case UInt8(ascii: "\\"):
                flush()
                plain.removeAll()
                units.append(try escape())
            case 0..<0x20: throw fail("a control character stands in a string")
            default: plain.append(byte)
            }
        }
    }

    /// nil where a surrogate has no partner.
    private func text(_ units: [UInt16]) -> String? {
        let text = String(decoding: units, as: UTF16.self)
        return text.utf16.elementsEqual(units) ? text : nil
    }

    private mutating func escape() throws -> UInt16 {
        let byte = try peek()
        at += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return UInt16(byte)
        case UInt8(ascii: "b"): return 0x08
        case UInt8(ascii: "f"): return 0x0C
        case UInt8(ascii: "n"): return 0x0A
        case UInt8(ascii: "r"): return 0x0D
        case UInt8(ascii: "t"): return 0x09
        case UInt8(ascii: "u"):
            let digits = bytes[at..<min(at + 4, bytes.count)]
            guard digits.count == 4, digits.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit }),
                let unit = UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
            else { throw fail("a bad \\u escape") }
            at += 4
            return unit
        default: throw fail("a bad escape")
        }
    }

    private mutating func number() throws -> JSONValue {
        let start = at
        _ = skip("-")
        if !skip("0") { try digits("a value is expected") }
        if skip(".") { try digits("a digit is expected") }
        if skip("e") || skip("E") {
            _ = skip("+") || skip("-")
            try digits("a digit is expected")
        }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        guard let value = Double(text), value.isFinite else { throw fail("the number \(text) is too large") }
        return .number(value)
    }

    private mutating func digits(_ otherwise: String) throws {
        let start = at
        while at < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[at]) { at += 1 }
        if at == start { throw fail(otherwise) }
    }

    private mutating func word(_ word: String, _ value: JSONValue) throws -> JSONValue {
        if !bytes[at...].starts(with: word.utf8) { throw fail("a value is expected") }
        at += word.utf8.count
        return value
    }

    private mutating func space() {
        while at < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[at]) { at += 1 }
    }

    private func peek() throws -> UInt8 {
        if at < bytes.count { return bytes[at] }
        throw fail("it ends too early")
    }

    private mutating func skip(_ scalar: UnicodeScalar) -> Bool {
        guard at < bytes.count, bytes[at] == UInt8(ascii: scalar) else { return false }
        at += 1
        return true
    }

    private func fail(_ what: String) -> JSONError { JSONError(description: "\(what), at byte \(at)") }
}
