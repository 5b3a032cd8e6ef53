import Foundation

/// What the kit cannot do, and what to do about it.
public enum KitError: LocalizedError, Equatable, Sendable {
    /// Bytes that are no image; the reason.
    case imageUnreadable(String)
    /// The app carries no models, or what they are delivered by does not; what is missing.
    case modelsMissing(String)
    /// No artifact of the bundle runs on this device; its artifacts.
    case nothingRuns([String])
    /// The artifact that was asked for is not there or does not run here; its label, and those that do.
    case artifactUnknown(String, known: [String])
    /// A runtime gave something else than the manifest says.
    case runtimeDisagrees(String)

    public var errorDescription: String? {
        switch self {
        case .imageUnreadable(let reason): "The image cannot be read: \(reason)."
        case .modelsMissing(let what): "The app has no models: \(what)."
        case .nothingRuns(let labels):
            "None of the artifacts (\(labels.joined(separator: ", "))) runs on this device and system."
        case .artifactUnknown(let label, let known):
            "The artifact '\(label)' does not run here; those that do: \(known.joined(separator: ", "))."
        case .runtimeDisagrees(let what): "The model is not what its manifest says: \(what)."
        }
    }

    public var recoverySuggestion: String? {
        switch self {
        case .imageUnreadable: "Choose a JPEG, HEIC or PNG file."
        case .modelsMissing: "Make the project with `cspedge bundle --app ios`, which puts the models into it."
        case .nothingRuns: "Update the system, or bundle an artifact for it (`cspedge bundle --target`)."
        case .artifactUnknown: "Choose one of those."
        case .runtimeDisagrees: "Make the bundle again with `cspedge bundle` and the runtime's version that it names."
        }
    }
}
