package cspedge.core

/** Why a bundle or an image is refused. `word` is the same in Python, Swift and Kotlin (docs/bundle.md). */
public enum class RefusalKind(public val word: String) {
    NOT_A_BUNDLE("not-a-bundle"),
    PATH_UNSAFE("path-unsafe"),
    LINK("link"),
    NAME_COLLISION("name-collision"),
    TOO_LARGE("too-large"),
    SIGNATURE_MISSING("signature-missing"),
    SIGNATURE_INVALID("signature-invalid"),
    SIGNATURE_WRONG_KEY("signature-wrong-key"),
    SIGNATURE_MISMATCH("signature-mismatch"),
    MANIFEST_INVALID("manifest-invalid"),
    SCHEMA_NEWER("schema-newer"),
    UNKNOWN_FIELD("unknown-field"),
    FILE_MISSING("file-missing"),
    FILE_EXTRA("file-extra"),
    FILE_CHANGED("file-changed"),
    VERSION_OLDER("version-older"),
    OTHER_BUNDLE("other-bundle"),
    LABELS_INVALID("labels-invalid"),
    IMAGE_EMPTY("image-empty"),
    IMAGE_TOO_LARGE("image-too-large"),
    IMAGE_INVALID("image-invalid"),
    PREPROCESS_MISMATCH("preprocess-mismatch"),
    ARTIFACT_REFUSED("artifact-refused"),
    GOLDEN_MISMATCH("golden-mismatch"),
}

/** What was refused and why, in one sentence. */
public class Refusal(public val kind: RefusalKind, message: String, cause: Throwable? = null) :
    Exception(message, cause)
