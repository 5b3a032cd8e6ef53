import CspEdgeCore
import Foundation

/// The system that an app runs on, in the words of a manifest's `minimum_os`.
public struct OperatingSystem: Equatable, Sendable {
    public let platform: String
    public let major: Int

    public init(platform: String, major: Int) {
        self.platform = platform
        self.major = major
    }

    public static var current: OperatingSystem {
        #if os(macOS)
            let platform = "macos"
        #elseif os(Linux)
            let platform = "linux"
        #else
            let platform = "ios"
        #endif
        return OperatingSystem(platform: platform, major: ProcessInfo.processInfo.operatingSystemVersion.majorVersion)
    }

    /// Whether one of these floors, `<platform>` or `<platform>-<major>`, names this platform and is not above it.
    public func reaches(_ floors: [String]) -> Bool {
        floors.contains { floor in
            let parts = floor.split(separator: "-", maxSplits: 1)
            guard parts.first.map(String.init) == platform else { return false }
            return parts.count == 1 || Int(parts[1]).map { $0 <= major } ?? false
        }
    }
}

/// Several runtimes as one: an artifact goes to the first that runs it, if the system is new enough for it.
public struct Runtimes: ModelRuntime {
    private let runtimes: [any ModelRuntime]
    private let system: OperatingSystem

    public init(_ runtimes: [any ModelRuntime], system: OperatingSystem = .current) {
        self.runtimes = runtimes
        self.system = system
    }

    public func runs(_ artifact: Artifact) -> Bool {
        system.reaches(artifact.minimumOS) && runtimes.contains { $0.runs(artifact) }
    }

    public func open(_ artifact: Artifact, of manifest: Manifest, at url: URL) async throws -> any ModelSession {
        guard let runtime = runtimes.first(where: { $0.runs(artifact) }), system.reaches(artifact.minimumOS) else {
            throw KitError.nothingRuns([artifact.label])
        }
        return try await runtime.open(artifact, of: manifest, at: url)
    }

    public func keepOnly(_ manifest: Manifest) async throws {
        for runtime in runtimes { try await runtime.keepOnly(manifest) }
    }
}
