"""Values that travel between the stages: frozen, keyword-only, free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.layers import Trace
    from cspedge.measured import Instructions, Latency, RanOn
    from cspedge.robustness import Corrupted


class Precision(StrEnum):
    """Numeric format of an artifact: `int8` means int8 weights per channel and int8 activations."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"

    @property
    def is_float(self) -> bool:
        return self is not Precision.INT8


class Head(StrEnum):
    """What a model gives: class logits, every feature map, or the vector before the classifier."""

    LOGITS = "logits"
    FEATURES = "features"
    EMBEDDING = "embedding"


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of a model: a float32 tensor [n, *shape], channels first.

    name: the same in every artifact; stride: input pixels from one position of a feature map to the next, None for
    vectors.
    """

    name: str
    shape: tuple[int, ...]
    stride: int | None = None

    @property
    def channels(self) -> int:
        return self.shape[0]


class Status(StrEnum):
    """What became of one artifact."""

    OK = "ok"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"


class Evidence(StrEnum):
    """What stands behind an artifact's accuracy figures."""

    MEASURED = "measured"
    EMULATED = "emulated"  # by the runtime's own kernels for another processor, on an emulation of it
    REFERENCE_EXECUTOR = "reference-executor"
    NOT_RUN = "not-run"


class Verdict(StrEnum):
    """Whether an artifact should reach users."""

    SHIP = "ship"
    CAUTION = "caution"
    DO_NOT_SHIP = "do-not-ship"


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The preprocessing contract: how an image file becomes the model's input tensor.

    The tensor is float32 NCHW, RGB, in [0, 1] (uint8 / 255); `mean` and `std` are applied inside
    the graph and stand here for the record. `interpolation` is Pillow's word (bilinear, bicubic, ...).
    """

    input_size: tuple[int, int, int]  # channels, height, width
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An image that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Decoded, preprocessed images.

    images: uint8 [n, 3, H, W], RGB; labels: int64 [n] or None; names: paths relative to the source;
    digests: SHA-256 of each encoded image (file content), in the same order.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    names: tuple[str, ...]
    digests: tuple[str, ...]
    source: str
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sha256(self) -> str:
        """Digest of the images (by content) and labels, in order."""
        from cspedge.digest import sha256_json

        labels = None if self.labels is None else [int(v) for v in self.labels]
        return sha256_json({"digests": list(self.digests), "labels": labels})


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy of one artifact on the validation set, all fractions of 1 (see `cspedge.evaluate`)."""

    n: int
    top1: float
    top5: float
    macro_top1: float
    drop_top1: float
    drop_ci95: tuple[float, float]
    agreement: float
    sqnr_db: float | None  # None where artifact and reference are equal bit for bit


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """One class whose answers changed: images of it, right only with the reference, right only with the artifact.

    label: the class index; p: exact McNemar; q: p corrected for all classes (Benjamini-Hochberg).
    """

    label: int
    n: int
    only_reference: int
    only_artifact: int
    p: float
    q: float


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Tests and intervals on the same images as the reference (`cspedge.evaluate.paired`); drops are fractions of 1.

    only_reference, only_artifact: images that one of the two alone gets right; *_bootstrap95: None where no answer
    changed; ece: expected calibration error, with its number of bins; classes: those that have images; changed: those
    of them where an answer became right or wrong.
    """

    only_reference: int
    only_artifact: int
    mcnemar_p: float
    drop_bootstrap95: tuple[float, float] | None
    top5_drop: float
    top5_ci95: tuple[float, float]
    top5_mcnemar_p: float
    macro_drop: float
    macro_bootstrap95: tuple[float, float] | None
    ece_reference: float
    ece_reference_bins: int
    ece: float
    ece_bins: int
    classes: int
    changed: tuple[ClassChange, ...]


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """How close one output of an artifact is to the reference's on n images (see `cspedge.evaluate.outputs`).

    sqnr_db: over all values, None where both are equal bit for bit; cosine_mean, cosine_min: over images;
    neighbour_agreement: share of images with the same nearest neighbour, embeddings only.
    """

    name: str
    n: int
    sqnr_db: float | None
    cosine_mean: float
    cosine_min: float
    neighbour_agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What really runs in int8, as the saved artifact (or its runtime) says."""

    int8_op_share: float
    int8_mac_share: float
    fp32_islands: tuple[str, ...]
    encodings_match: bool | None  # None for float artifacts
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One lowered model on disk, loaded from its file and compared before it is one.

    path: a file, or a folder for formats that are folders; sha256 and bytes are those of `path`;
    outputs: their names, in order; check_sqnr_db: against PT2E's answer to the same placed graph, of the output that
    is furthest off (None: equal); check_max_abs: the largest difference of any value there; placement: in words;
    float_tensors: those that an int8 artifact keeps in float.
    """

    target: str
    backend: str
    precision: Precision
    path: Path
    bytes: int
    sha256: str
    placement: str
    audit: Audit | None
    outputs: tuple[str, ...]
    check_sqnr_db: float | None
    check_max_abs: float
    lower_s: float
    float_tensors: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.target}/{self.precision}"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One artifact's answers on a validation set.

    vectors: its logits or embeddings, float32 [n, d], None for feature maps; accuracy, paired: of logits on labelled
    images; outputs: each output beside the reference's; ran_on: None for this process.
    """

    vectors: NDArray[np.float32] | None
    accuracy: Accuracy | None
    outputs: tuple[Closeness, ...]
    evidence: Evidence
    paired: Paired | None = None
    ran_on: RanOn | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the accuracy loop keeps in float in one int8 artifact, and how it ended.

    layers: convolutions and linears that go with the tensors; mac_share: of multiply-accumulates outside int8, as a
    fraction of 1.
    """

    tensors: tuple[str, ...]
    layers: tuple[str, ...]
    mac_share: float
    met: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class ArtifactResult:
    """A row of the report: one target in one precision, whatever became of it."""

    target: str
    backend: str
    precision: Precision
    status: Status
    reason: str | None = None
    artifact: Artifact | None = None
    evaluation: Evaluation | None = None
    latency: Latency | None = None
    instructions: Instructions | None = None
    manifest: str | None = None
    kept: Kept | None = None
    robustness: tuple[Corrupted, ...] = ()
    trace: Trace | None = None

    @property
    def label(self) -> str:
        return f"{self.target}/{self.precision}"
