import Foundation

/// Folders made of artifacts, such as compiled models, by the artifact's digest and the system they were made on.
///
/// A folder appears in one rename, whole or not at all. The root must be the app's own; the system may empty it (Caches).
public actor ArtifactCache {
    private static let staging = ".staging-"
    private let root: URL
    private let ending: String

    /// system: what was made on another one is made again. suffix: of the folders' names, as their reader wants it.
    public init(
        root: URL, system: String = ProcessInfo.processInfo.operatingSystemVersionString, suffix: String = ""
    ) {
        self.root = root
        let safe = system.unicodeScalars.map { CharacterSet.alphanumerics.contains($0) ? String($0) : "_" }
        ending = "-\(safe.joined())\(suffix)"
    }

    /// The folder of this digest; `make` makes it where there is none, anywhere, and it is moved here.
    public func folder(_ digest: String, make: @Sendable () async throws -> URL) async throws -> URL {
        let place = place(digest)
        let files = FileManager.default
        if files.fileExists(atPath: place.path) { return place }
        let made = try await make()
        try files.createDirectory(at: root, withIntermediateDirectories: true)
        // first onto this volume, then into place: only the second step is seen
        let staged = root.appendingPathComponent(Self.staging + UUID().uuidString, isDirectory: true)
        defer { try? files.removeItem(at: staged) }
        try files.moveItem(at: made, to: staged)
        // another call may have made it while this one waited
        if !files.fileExists(atPath: place.path) { try files.moveItem(at: staged, to: place) }
        return place
    }

    /// Forgets the folder of one digest.
    public func remove(_ digest: String) throws {
        let place = place(digest)
        if FileManager.default.fileExists(atPath: place.path) { try FileManager.default.removeItem(at: place) }
    }

    /// Removes all folders but those of these digests on this system, and what a killed process left.
    public func removeAll(but digests: Set<String>) throws {
        let files = FileManager.default
        guard files.fileExists(atPath: root.path) else { return }
        let kept = Set(digests.map { place($0).lastPathComponent })
        for name in try files.contentsOfDirectory(atPath: root.path) where !kept.contains(name) {
            try files.removeItem(at: root.appendingPathComponent(name))
        }
    }

    private func place(_ digest: String) -> URL { root.appendingPathComponent(digest + ending, isDirectory: true) }
}
