private let maxPath = 240

/// Whether a path may stand in a bundle: relative, `/` between parts, ASCII letters, digits, `.`, `_`, `-` only.
public func isSafePath(_ path: String) -> Bool {
    let bytes = Array(path.utf8)
    return (1...maxPath).contains(bytes.count)
        && bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).allSatisfy(isSafePart)
}

private func isSafePart(_ part: ArraySlice<UInt8>) -> Bool {
    guard let first = part.first, let last = part.last else { return false }
    let dot = UInt8(ascii: ".")
    let dash = UInt8(ascii: "-")
    return part.allSatisfy { isWord($0) || $0 == dot || $0 == dash } && isWord(first) && last != dot
}

private func isWord(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"): true
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"): true
    default: false
    }
}

func checkPath(_ path: String) throws {
    if isSafePath(path) { return }
    throw Refusal(
        .pathUnsafe,
        "the path '\(path.prefix(maxPath))' may not stand in a bundle; allowed are relative paths of at most "
            + "\(maxPath) characters, A-Z a-z 0-9 . _ - and '/', no part beginning with '.' or '-' or ending with '.'")
}

/// Refuses two files or folders that some file systems take for one: equal but for case, or a file and a folder.
func checkTwins(_ paths: [String]) throws {
    var files: [String: String] = [:]
    var folders: [String: String] = [:]
    for path in paths {
        if let twin = files.updateValue(path, forKey: path.lowercased()) { throw twins(twin, path) }
        var parts = path.split(separator: "/")
        while parts.count > 1 {
            parts.removeLast()
            let folder = parts.joined(separator: "/")
            let twin = folders.updateValue(folder, forKey: folder.lowercased()) ?? folder
            if twin != folder { throw twins(twin, folder) }
        }
    }
    for (key, file) in files {
        if let folder = folders[key] { throw twins(file, folder) }
    }
}

private func twins(_ one: String, _ other: String) -> Refusal {
    Refusal(.nameCollision, "it holds '\(one)' and '\(other)', which are one name to some file systems")
}
