import Foundation

/// The part of JSON Schema 2020-12 that bundle.schema.json uses.
///
/// The schema is the file that `cspedge verify` validates with, so the three languages cannot come to differ about a
/// field. A keyword that is not known here is an error of this program, never ignored.
struct Schema: Sendable {
    let root: JSONValue

    private struct Fault {
        let kind: RefusalKind
        let path: String
        let message: String
        var ofType = false
    }

    /// Refuses `value`: a field that no schema has goes before anything else that is wrong.
    func check(_ value: JSONValue, _ what: String) throws {
        var found: [Fault] = []
        try visit(value, root, "", &found)
        guard let fault = found.first(where: { $0.kind == .unknownField }) ?? found.first else { return }
        throw Refusal(fault.kind, "\(what): \(fault.path.isEmpty ? "/" : fault.path) \(fault.message)")
    }

    private func visit(_ value: JSONValue, _ schema: JSONValue, _ path: String, _ found: inout [Fault]) throws {
        func wrong(_ message: String) { found.append(Fault(kind: .manifestInvalid, path: path, message: message)) }
        guard let rules = schema.fields else { throw unsupported("a schema that is no object") }
        for (keyword, rule) in rules {
            switch keyword {
            case "$schema", "$id", "$defs", "title", "description", "properties": break
            case "$ref": try visit(value, try resolve(rule), path, &found)
            case "anyOf": try anyOf(value, rule.array ?? [], path, &found)
            case "type":
                if try !hasType(value, rule) {
                    found.append(Fault(kind: .manifestInvalid, path: path, message: "has a wrong type", ofType: true))
                }
            case "const": if value != rule { wrong("has another value than the format allows") }
            case "enum": if rule.array?.contains(value) != true { wrong("has another value than the format allows") }
            case "required":
                guard let fields = value.fields else { break }
                for name in rule.array ?? [] where fields[name.string ?? ""] == nil {
                    wrong("lacks the field '\(name.string ?? "")'")
                }
            case "additionalProperties": try fields(value, schema, rule, path, &found)
            case "items":
                for (index, item) in (value.array ?? []).enumerated() {
                    try visit(item, rule, "\(path)/\(index)", &found)
                }
            case "minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum":
                if let message = try range(keyword, value, rule) { wrong(message) }
            case "pattern":
                if let text = value.string, try !matches(text, rule) {
                    wrong("is '\(text.prefix(80))', which has not the form needed")
                }
            default: throw unsupported("'\(keyword)'")
            }
        }
    }

    private func anyOf(_ value: JSONValue, _ options: [JSONValue], _ path: String, _ found: inout [Fault]) throws {
        var tries: [[Fault]] = []
        for option in options {
            var faults: [Fault] = []
            try visit(value, option, path, &faults)
            if faults.isEmpty { return }
            tries.append(faults)
        }
        // of the right type, if one is: its faults say more than "not null"
        let fitting = tries.first { faults in !faults.contains { $0.ofType && $0.path == path } }
        found.append(contentsOf: fitting ?? tries.first ?? [])
    }

    private func fields(
        _ value: JSONValue, _ schema: JSONValue, _ others: JSONValue, _ path: String, _ found: inout [Fault]
    ) throws {
        let known = schema["properties"]?.fields ?? [:]
        for (name, field) in value.fields ?? [:] {
            if let rule = known[name] ?? (others.fields == nil ? nil : others) {
                try visit(field, rule, "\(path)/\(name)", &found)
            } else {
                let message = "has the field '\(name)', which schema 1 does not know"
                found.append(Fault(kind: .unknownField, path: path, message: message))
            }
        }
    }

    private func range(_ keyword: String, _ value: JSONValue, _ rule: JSONValue) throws -> String? {
        guard let bound = rule.number else { throw unsupported("'\(keyword)' without a number") }
        switch (keyword, value) {
        case ("minItems", .array(let items)): return Double(items.count) < bound ? "has too few entries" : nil
        case ("maxItems", .array(let items)): return Double(items.count) > bound ? "has too many entries" : nil
        case ("minLength", .string(let text)):
            return Double(text.unicodeScalars.count) < bound ? "is too short" : nil
        case ("maxLength", .string(let text)): return Double(text.unicodeScalars.count) > bound ? "is too long" : nil
        case ("minimum", .number(let number)): return number < bound ? "is \(number), below \(bound)" : nil
        case ("maximum", .number(let number)): return number > bound ? "is \(number), above \(bound)" : nil
        case ("exclusiveMinimum", .number(let number)):
            return number <= bound ? "is \(number), not above \(bound)" : nil
        default: return nil
        }
    }

    /// The whole text must match: `$` alone would let a last line end pass.
    private func matches(_ text: String, _ rule: JSONValue) throws -> Bool {
        let expression = try NSRegularExpression(pattern: rule.string ?? "")
        let whole = NSRange(location: 0, length: text.utf16.count)
        return expression.firstMatch(in: text, range: whole)?.range == whole
    }

    private func hasType(_ value: JSONValue, _ rule: JSONValue) throws -> Bool {
        if case .array(let types) = rule { return try types.contains { try hasType(value, $0) } }
        switch (rule.string, value) {
        case ("object", .object), ("array", .array), ("string", .string), ("number", .number), ("boolean", .bool),
            ("null", .null):
            return true
        case ("integer", .number): return value.isInteger
        case ("object", _), ("array", _), ("string", _), ("number", _), ("boolean", _), ("null", _), ("integer", _):
            return false
        default: throw unsupported("the type \(rule)")
        }
    }

    private func resolve(_ reference: JSONValue) throws -> JSONValue {
        let name = (reference.string ?? "").replacingOccurrences(of: "#/$defs/", with: "")
        guard let schema = root["$defs"]?[name] else { throw unsupported("the reference '\(name)'") }
        return schema
    }

    private func unsupported(_ what: String) -> UsageError {
        UsageError("bundle.schema.json uses \(what), which is not known here")
    }
}
