import Foundation

private let maxFiles = 4096
private let maxBytes = 2 << 30
private let maxText = 4 << 20

/// A file that is there, and its size.
struct FoundFile {
    let url: URL
    let bytes: Int
}

/// The files of a bundle's folder by their paths in it.
///
/// Refusal: not-a-bundle, path-unsafe, link, name-collision, file-extra, too-large. Only names and sizes are read.
func listBundle(_ root: URL) throws -> [String: FoundFile] {
    guard (try? entry(root.appendingPathComponent(manifestFile)))?.type == .typeRegular else {
        throw Refusal(.notABundle, "'\(root.lastPathComponent)' is no folder with a \(manifestFile)")
    }
    var found: [String: FoundFile] = [:]
    try list(root, below: "", &found)
    try checkTwins(found.keys.sorted())
    if found.values.reduce(0, { $0 + $1.bytes }) > maxBytes { throw Refusal(.tooLarge, "it has more than 2 GiB") }
    for name in [manifestFile, signatureFile] where found[name]?.bytes ?? 0 > maxText {
        throw Refusal(.tooLarge, "\(name) has more than 4 MiB")
    }
    return found
}

private func list(_ folder: URL, below prefix: String, _ found: inout [String: FoundFile]) throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    if names.isEmpty { throw Refusal(.fileExtra, "'\(prefix)' is an empty folder") }
    for name in names.sorted() {
        let path = prefix.isEmpty ? name : "\(prefix)/\(name)"
        try checkPath(path)
        let url = folder.appendingPathComponent(name)
        let entry = try entry(url)
        switch entry.type {
        case .typeDirectory: try list(url, below: path, &found)
        case .typeRegular:
            if found.count == maxFiles { throw Refusal(.tooLarge, "it has more than \(maxFiles) files") }
            found[path] = FoundFile(url: url, bytes: entry.bytes)
        default: throw Refusal(.link, "'\(path)' is a link or a device; a bundle holds plain files only")
        }
    }
}

/// Of the entry itself: links are not followed.
private func entry(_ url: URL) throws -> (type: FileAttributeType, bytes: Int) {
    let attributes = try FileManager.default.attributesOfItem(atPath: url.path)
    let bytes = (attributes[.size] as? NSNumber)?.intValue ?? 0
    return (attributes[.type] as? FileAttributeType ?? .typeUnknown, bytes)
}
