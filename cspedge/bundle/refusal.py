"""Why a bundle is refused: one word for programs, one sentence for people (docs/bundle.md)."""

from __future__ import annotations

from enum import StrEnum

from cspedge.errors import InputError


class Kind(StrEnum):
    """The kinds of refusal, the same words in Python, Swift, Kotlin and the shared vectors."""

    NOT_A_BUNDLE = "not-a-bundle"
    ARCHIVE_DAMAGED = "archive-damaged"
    PATH_UNSAFE = "path-unsafe"
    LINK = "link"
    NAME_COLLISION = "name-collision"
    TOO_LARGE = "too-large"
    SIGNATURE_MISSING = "signature-missing"
    SIGNATURE_INVALID = "signature-invalid"
    SIGNATURE_WRONG_KEY = "signature-wrong-key"
    SIGNATURE_MISMATCH = "signature-mismatch"
    FILE_MISSING = "file-missing"
    FILE_EXTRA = "file-extra"
    FILE_CHANGED = "file-changed"
    MANIFEST_INVALID = "manifest-invalid"
    SCHEMA_NEWER = "schema-newer"
    UNKNOWN_FIELD = "unknown-field"
    VERSION_OLDER = "version-older"
    OTHER_BUNDLE = "other-bundle"
    LABELS_INVALID = "labels-invalid"
    IMAGE_EMPTY = "image-empty"
    IMAGE_TOO_LARGE = "image-too-large"
    IMAGE_INVALID = "image-invalid"
    PREPROCESS_MISMATCH = "preprocess-mismatch"
    ARTIFACT_REFUSED = "artifact-refused"
    GOLDEN_MISMATCH = "golden-mismatch"


class Refusal(InputError):
    """A bundle, or an image, that is not taken; `kind` says why in a word that never changes, `sentence` to people."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(f"{sentence} [{kind}]")
        self.kind = kind
        self.sentence = sentence
