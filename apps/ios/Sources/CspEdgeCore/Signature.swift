import Foundation

private let mediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
private let payloadType = "application/vnd.in-toto+json"
private let statementType = "https://in-toto.io/Statement/v1"
private let predicateType = "https://model_signing/signature/v1.0"
let signatureFile = "model.sig"
private let ignorable: Set = [signatureFile, ".git", ".gitattributes", ".github", ".gitignore"]

/// An ECDSA P-256 public key that signatures are held against; it belongs to the app, never to a bundle.
public struct VerifyingKey: Sendable {
    private static let begin = "-----BEGIN PUBLIC KEY-----"
    private static let end = "-----END PUBLIC KEY-----"
    private let key: PublicKey
    private let hint: String

    /// From PEM text (SubjectPublicKeyInfo). UsageError where it is no P-256 public key.
    public init(pem: String) throws {
        let lines = pem.split(whereSeparator: \.isNewline).map { $0.trimmingCharacters(in: .whitespaces) }
        guard lines.first == Self.begin, lines.last == Self.end,
            let der = Data(base64Encoded: lines.dropFirst().dropLast().joined())
        else { throw UsageError("a PEM public key begins with '\(Self.begin)' and ends with '\(Self.end)'") }
        guard let key = PublicKey(der: der) else { throw UsageError("the key is not a public key on the curve P-256") }
        self.key = key
        let body = Array(key.der.base64EncodedString())
        let wrapped = stride(from: 0, to: body.count, by: 64).map { String(body[$0..<min($0 + 64, body.count)]) }
        hint = sha256(Data("\(Self.begin)\n\(wrapped.joined(separator: "\n"))\n\(Self.end)\n".utf8))
    }

    /// The digests, by path, that the signature in `text` (the bytes of model.sig) vouches for.
    ///
    /// OpenSSF Model Signing v1.0: a DSSE envelope in a Sigstore bundle. The payload is parsed only after the signature
    /// over its exact bytes holds. Refusal: signature-invalid, signature-wrong-key, signature-mismatch.
    public func signedDigests(_ text: Data) throws -> [String: String] {
        let bundle = try parse(text, signatureFile)
        try need(bundle["mediaType"]?.string == mediaType, "its mediaType is not '\(mediaType)'")
        let envelope = bundle["dsseEnvelope"]
        try need(envelope?["payloadType"]?.string == payloadType, "its payloadType is not '\(payloadType)'")
        let signatures = envelope?["signatures"]?.array ?? []
        try need(signatures.count == 1, "it has not exactly one signature")
        let signature = try decode(signatures.first?["sig"])
        let payload = try decode(envelope?["payload"])
        try checkHint(bundle["verificationMaterial"]?["publicKey"]?["hint"])
        guard key.holds(signature, over: preAuthenticationEncoding(payload)) else {
            throw Refusal(.signatureMismatch, "\(signatureFile): the signature does not hold over its payload")
        }
        return try statementDigests(try parse(payload, "the payload of \(signatureFile)"))
    }

    private func checkHint(_ given: JSONValue?) throws {
        guard let given, given != .null, given != .string("") else { return }
        try need(given.string != nil, "its hint is not a text")
        if given.string != hint {
            throw Refusal(.signatureWrongKey, "\(signatureFile) was made with another key than the one given")
        }
    }
}

/// DSSE's PAE: what is signed, so that neither type nor length of the payload can be reinterpreted.
private func preAuthenticationEncoding(_ payload: Data) -> Data {
    Data("DSSEv1 \(payloadType.utf8.count) \(payloadType) \(payload.count) ".utf8) + payload
}

private func statementDigests(_ statement: JSONValue) throws -> [String: String] {
    try need(statement["_type"]?.string == statementType, "its statement is not of type '\(statementType)'")
    try need(statement["predicateType"]?.string == predicateType, "its predicateType is not '\(predicateType)'")
    let subjects = statement["subject"]?.array ?? []
    try need(subjects.count == 1, "its statement has not exactly one subject")
    let predicate = statement["predicate"]
    try checkSerialization(predicate?["serialization"])
    guard let resources = predicate?["resources"]?.array else { throw invalid("it lists no resources") }
    var digests: [String: String] = [:]
    var joined = Data()
    for resource in resources {
        guard let name = resource["name"]?.string else { throw invalid("a resource has no name") }
        guard resource["algorithm"]?.string == "sha256", let digest = resource["digest"]?.string,
            let bytes = hexadecimalBytes(digest), bytes.count == 32
        else { throw invalid("the digest of '\(name)' is not SHA-256") }
        try need(isSafePath(name), "it signs the path '\(name)', which may not stand in a bundle")
        try need(digests.updateValue(digest, forKey: name) == nil, "it signs '\(name)' twice")
        joined.append(contentsOf: bytes)
    }
    let root = subjects.first?["digest"]?["sha256"]?.string
    try need(root == sha256(joined), "the digest of its subject is not that of its resources")
    return digests
}

private func checkSerialization(_ serialization: JSONValue?) throws {
    try need(serialization?["method"]?.string == "files", "its method is not 'files'")
    try need(serialization?["hash_type"]?.string == "sha256", "its hash_type is not 'sha256'")
    try need(serialization?["allow_symlinks"] == .bool(false), "it allows symbolic links")
    guard let ignored = serialization?["ignore_paths"] else { return }
    guard let paths = ignored.array else { throw invalid("its ignore_paths are not a list") }
    for path in paths {
        try need(ignorable.contains(path.string ?? "/"), "it ignores a path that a bundle must have signed")
    }
}

private func parse(_ text: Data, _ what: String) throws -> JSONValue {
    do {
        return try parseJSON([UInt8](text))
    } catch let error as JSONError {
        throw Refusal(.signatureInvalid, "\(what) is not JSON: \(error.description)")
    }
}

private func decode(_ field: JSONValue?) throws -> Data {
    guard let text = field?.string else { throw invalid("a field is missing") }
    guard let data = Data(base64Encoded: text) else { throw invalid("a field is not base64") }
    return data
}

private func invalid(_ what: String) -> Refusal { Refusal(.signatureInvalid, "\(signatureFile): \(what)") }

private func need(_ condition: Bool, _ what: @autoclosure () -> String) throws {
    if !condition { throw invalid(what()) }
}
