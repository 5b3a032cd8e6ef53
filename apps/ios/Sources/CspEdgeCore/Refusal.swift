import Foundation

/// Why a bundle or an image is refused. The raw value is the same in Python, Kotlin and Swift (docs/bundle.md).
public enum RefusalKind: String, Sendable {
    case notABundle = "not-a-bundle"
    case pathUnsafe = "path-unsafe"
    case link = "link"
    case nameCollision = "name-collision"
    case tooLarge = "too-large"
    case signatureMissing = "signature-missing"
    case signatureInvalid = "signature-invalid"
    case signatureWrongKey = "signature-wrong-key"
    case signatureMismatch = "signature-mismatch"
    case manifestInvalid = "manifest-invalid"
    case schemaNewer = "schema-newer"
    case unknownField = "unknown-field"
    case fileMissing = "file-missing"
    case fileExtra = "file-extra"
    case fileChanged = "file-changed"
    case versionOlder = "version-older"
    case otherBundle = "other-bundle"
    case labelsInvalid = "labels-invalid"
    case imageEmpty = "image-empty"
    case imageTooLarge = "image-too-large"
    case imageInvalid = "image-invalid"
    case preprocessMismatch = "preprocess-mismatch"
    case artifactRefused = "artifact-refused"
    case goldenMismatch = "golden-mismatch"
}

/// What was refused and why, in one sentence.
public struct Refusal: LocalizedError, Equatable, Sendable, CustomStringConvertible {
    public let kind: RefusalKind
    public let message: String

    package init(_ kind: RefusalKind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    public var description: String { "\(message) (\(kind.rawValue))" }

    public var errorDescription: String? { description }

    public var recoverySuggestion: String? { kind.suggestion }
}

extension RefusalKind {
    /// What whoever holds the phone, or wrote the app, can do.
    public var suggestion: String {
        switch self {
        case .imageEmpty, .imageTooLarge, .imageInvalid: "Choose another image."
        case .schemaNewer: "Update the app."
        case .versionOlder, .otherBundle: "Keep the bundle that is installed, or take its newest version."
        case .signatureMissing, .signatureWrongKey: "Sign the bundle with the key whose public half the app carries."
        case .artifactRefused, .goldenMismatch, .preprocessMismatch:
            "Do not use this artifact on this device; report the device and its system with the message."
        default: "Take the bundle from its publisher again."
        }
    }
}

/// A call that cannot be answered: a value the caller chose is not allowed.
public struct UsageError: LocalizedError, Equatable, Sendable, CustomStringConvertible {
    public let description: String

    public var errorDescription: String? { description }

    package init(_ description: String) {
        self.description = description
    }
}
