import Foundation

/// A bundle whose signature, digests and manifest have been checked.
public struct ModelBundle: Sendable {
    public let folder: URL
    public let manifest: Manifest
    /// False where no key was given: then nobody stands for the bundle but whoever put it there.
    public let vouched: Bool
    private let digests: [String: String]

    /// Checks a bundle's folder: names, with a key the signature, the manifest, every file's bytes (docs/bundle.md,
    /// steps 1 to 5). The first failure is thrown as its Refusal. The folder must be one that nobody else writes to.
    public init(folder: URL, key: VerifyingKey?) throws {
        let found = try listBundle(folder)
        let there = try found.mapValues { (bytes: $0.bytes, sha256: try CspEdgeCore.sha256(fileAt: $0.url)) }
        if let key { try Self.checkSigned(folder, there.mapValues(\.sha256), key) }
        let bytes = try Data(contentsOf: folder.appendingPathComponent(manifestFile))
        if CspEdgeCore.sha256(bytes) != there[manifestFile]?.sha256 { throw changed(manifestFile) }
        let manifest = try Manifest(bytes)
        let listed = Set(manifest.files.map(\.path))
        try checkNames(Set(there.keys).subtracting([manifestFile, signatureFile]), listed, manifestFile)
        for entry in manifest.files {
            guard let file = there[entry.path], file.bytes == entry.bytes, file.sha256 == entry.sha256 else {
                throw changed(entry.path)
            }
        }
        self.folder = folder
        self.manifest = manifest
        vouched = key != nil
        digests = Dictionary(uniqueKeysWithValues: manifest.files.map { ($0.path, $0.sha256) })
    }

    private static func checkSigned(_ folder: URL, _ there: [String: String], _ key: VerifyingKey) throws {
        if there[signatureFile] == nil {
            throw Refusal(.signatureMissing, "it has no \(signatureFile); sign it, or do not ask for a key's word")
        }
        let signed = try key.signedDigests(try Data(contentsOf: folder.appendingPathComponent(signatureFile)))
        try checkNames(Set(there.keys).subtracting([signatureFile]), Set(signed.keys), "its signature")
        for (path, digest) in signed where there[path] != digest { throw changed(path) }
    }

    /// The bytes of a file, which are those of its digest; Refusal file-changed where they are not any more.
    public func read(_ path: String) throws -> Data {
        guard let digest = digests[path] else { throw UsageError("'\(path)' is not a file of the bundle") }
        let bytes = try Data(contentsOf: folder.appendingPathComponent(path))
        if CspEdgeCore.sha256(bytes) != digest { throw changed(path) }
        return bytes
    }

    /// Where an artifact lies, for runtimes that map it; its files are held against their digests now.
    public func artifactURL(_ artifact: Artifact) throws -> URL {
        for path in artifact.files {
            let now = try CspEdgeCore.sha256(fileAt: folder.appendingPathComponent(path))
            if now != digests[path] { throw changed(path) }
        }
        return folder.appendingPathComponent(artifact.path)
    }

    /// Class names in the order of the outputs; empty where the model has none. Refusal labels-invalid.
    public func labels() throws -> [String] {
        guard let path = manifest.labels else { return [] }
        func invalid(_ what: String) -> Refusal { Refusal(.labelsInvalid, "'\(path)' \(what)") }
        let bytes = [UInt8](try read(path))
        guard String(bytes: bytes, encoding: .utf8) != nil else { throw invalid("is not UTF-8") }
        let newline = UInt8(ascii: "\n")
        guard bytes.last == newline else { throw invalid("does not end with a line end") }
        let lines = bytes.dropLast().split(separator: newline, omittingEmptySubsequences: false)
            .map { String(decoding: $0, as: UTF8.self) }
        if lines.count != manifest.numClasses {
            throw invalid("has \(lines.count) lines for \(manifest.numClasses) classes")
        }
        return lines
    }

    /// The pixels of a golden image. Refusal: image-empty, image-too-large, image-invalid.
    public func goldenRGB(_ image: GoldenImage) throws -> RGBImage {
        try manifest.preprocess.checkSize(width: image.width, height: image.height)
        let pixels = try sized(image.rgb, 3 * image.width * image.height)
        return RGBImage(unchecked: [UInt8](pixels), width: image.width, height: image.height)
    }

    /// The tensor of a golden image, uint8 [3, H, W]. Refusal image-invalid.
    public func goldenTensor(_ image: GoldenImage) throws -> [UInt8] {
        [UInt8](try sized(image.tensor, 3 * manifest.preprocess.cropHeight * manifest.preprocess.cropWidth))
    }

    /// The rows of a golden answer, one an image. Refusal artifact-refused where the file has another length.
    package func goldenRows(_ golden: GoldenOutput, _ output: Output) throws -> [[Float]] {
        let bytes = 4 * output.size * manifest.goldenImages.count
        let values = floats(try sized(golden.file, bytes, else: .artifactRefused))
        return stride(from: 0, to: values.count, by: output.size).map { Array(values[$0..<($0 + output.size)]) }
    }

    private func sized(_ path: String, _ bytes: Int, else kind: RefusalKind = .imageInvalid) throws -> Data {
        let data = try read(path)
        if data.count == bytes { return data }
        throw Refusal(kind, "'\(path)' has \(data.count) bytes; it must have \(bytes)")
    }
}

/// float32 from little-endian bytes.
package func floats(_ data: Data) -> [Float] {
    let bytes = [UInt8](data)
    return stride(from: 0, to: bytes.count - 3, by: 4).map { at in
        Float(bitPattern: (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[at + $1]) << (8 * UInt32($1)) })
    }
}

private func checkNames(_ found: Set<String>, _ listed: Set<String>, _ by: String) throws {
    if let path = listed.subtracting(found).min() {
        throw Refusal(.fileMissing, "'\(path)' is not there, and \(by) lists it")
    }
    if let path = found.subtracting(listed).min() {
        throw Refusal(.fileExtra, "'\(path)' is there, and \(by) does not list it")
    }
}

private func changed(_ path: String) -> Refusal {
    Refusal(.fileChanged, "'\(path)' is not the file that was listed: its bytes have changed")
}
