import Foundation

/// A bundle that was accepted, and what its golden images gave.
public struct Accepted: Sendable {
    public let bundle: ModelBundle
    public let report: GoldenReport
}

/// The bundles of one name that an app has accepted: a folder of the app's own, with the bundle in force below it and
/// a small file that names it. A new bundle takes its place in one rename, after all checks; the old one stays until
/// then.
///
/// Several calls may run at once; two stores of one root, or two processes, may not.
public actor BundleStore {
    private struct State: Codable {
        let folder: String
        let version: String
        let floor: String
    }

    private static let stateFile = "installed.json"
    private static let staging = ".staging-"
    private let root: URL
    private let name: String
    private let key: VerifyingKey
    private let oldest: Version
    /// Copies that are being checked: `accept` waits for the runtime, and others may be accepted meanwhile.
    private var inProgress: Set<String> = []

    public init(root: URL, name: String, key: VerifyingKey, oldest: Version = Version(major: 0, minor: 0, patch: 0)) {
        self.root = root
        self.name = name
        self.key = key
        self.oldest = oldest
    }

    /// The bundle in force, with its bytes checked again; nil where none was accepted yet.
    public func installed() throws -> ModelBundle? {
        try state().map { try ModelBundle(folder: root.appendingPathComponent($0.folder), key: key) }
    }

    /// Copies the bundle in `source` into the store, checks the copy and puts it in force.
    ///
    /// All checks of docs/bundle.md, then: the same name (other-bundle); not older than the one in force, than `oldest`
    /// or than the largest minimum_version that was ever accepted (version-older). Whatever is refused leaves no trace.
    public func accept(_ source: URL, runtime: (any ModelRuntime)?) async throws -> Accepted {
        let files = FileManager.default
        try files.createDirectory(at: root, withIntermediateDirectories: true)
        let folder = "bundle-\(UUID().uuidString)"
        let copy = root.appendingPathComponent(Self.staging + folder)
        inProgress.insert(copy.lastPathComponent)
        defer {
            try? files.removeItem(at: copy)  // gone already where all went well
            inProgress.remove(copy.lastPathComponent)
        }
        try self.copy(source, to: copy)
        let staged = try ModelBundle(folder: copy, key: key)
        _ = try checkVersion(staged.manifest, try state())
        let report = try await replayGolden(staged, runtime: runtime)
        // again: a newer one may have been accepted while this one was replayed, and from here on nothing waits
        let floor = try checkVersion(staged.manifest, try state())
        let place = root.appendingPathComponent(folder)
        try files.moveItem(at: copy, to: place)
        let state = State(folder: folder, version: staged.manifest.version.description, floor: floor.description)
        try JSONEncoder().encode(state).write(to: root.appendingPathComponent(Self.stateFile), options: .atomic)
        try removeStale(but: folder)
        return Accepted(bundle: try ModelBundle(folder: place, key: key), report: report)
    }

    /// The floor from now on.
    private func checkVersion(_ manifest: Manifest, _ before: State?) throws -> Version {
        if manifest.name != name {
            throw Refusal(.otherBundle, "it is the bundle '\(manifest.name)', and this is the place of '\(name)'")
        }
        let floor = try before.map { try Version($0.floor) } ?? oldest
        let least = max(oldest, floor, try before.map { try Version($0.version) } ?? oldest)
        if manifest.version < least {
            throw Refusal(.versionOlder, "it has version \(manifest.version); \(least) is the oldest allowed")
        }
        return max(floor, manifest.minimumVersion)
    }

    /// Names and sizes are checked before a byte is copied, so that no link is followed and no disk filled.
    private func copy(_ source: URL, to target: URL) throws {
        let files = FileManager.default
        for (path, file) in try listBundle(source) {
            let place = target.appendingPathComponent(path)
            try files.createDirectory(at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
            try files.copyItem(at: file.url, to: place)
        }
    }

    private func state() throws -> State? {
        let file = root.appendingPathComponent(Self.stateFile)
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        return try JSONDecoder().decode(State.self, from: try Data(contentsOf: file))
    }

    private func removeStale(but folder: String) throws {
        let files = FileManager.default
        let kept = inProgress.union([folder, Self.stateFile])
        for name in try files.contentsOfDirectory(atPath: root.path) where !kept.contains(name) {
            try files.removeItem(at: root.appendingPathComponent(name))
        }
    }
}
