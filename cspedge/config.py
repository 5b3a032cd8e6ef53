"""TOML in, frozen options out: targets, recipes and `cspedge.toml`. Unknown keys are errors."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from cspedge.errors import UsageError
from cspedge.options import PlacementChoice
from cspedge.quantize.calibrate import QuantizeOptions
from cspedge.quantize.islands import Cost
from cspedge.quantize.mixed import MixedOptions
from cspedge.quantize.placement import Placement
from cspedge.quantize.quantizer import CorrectOptions, LearnOptions, QuantizerOptions, distinct
from cspedge.resources import recipe_file, target_file
from cspedge.types import Head, Precision

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Precisions:
    """What a target can be lowered to, and what it is lowered to when nobody says."""

    supported: tuple[Precision, ...]
    default: tuple[Precision, ...]


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The oldest systems and instruction sets the artifacts are meant for."""

    os: tuple[str, ...] = ()
    isa: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far an artifact may be from PT2E's answer to the same placed graph before it counts as failed.

    float_sqnr_db: of float artifacts against the fp32 reference; int8_sqnr_db: of int8 artifacts against PT2E.
    """

    float_sqnr_db: float = 50.0
    int8_sqnr_db: float = 15.0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an artifact may cost, in fractions of 1 and sizes in 10^6 bytes.

    max_drop, min_agreement: of logits, against fp32; min_cosine: of feature maps and embeddings, the mean over images
    of the output that is furthest off; max_p95_ms: the 95th percentile of one image's latency on this host.
    """

    max_drop: float = 0.01
    min_agreement: float = 0.9
    min_cosine: float = 0.95
    max_mb: float | None = None
    max_p95_ms: float | None = None

    def misses(self, artifact: Mapping[str, Any]) -> list[str]:
        """What an artifact of report.json exceeds, a sentence each, as far as it was measured."""
        from cspedge.report.verdict import p95_ms
        from cspedge.report.words import cosine, megabytes, milliseconds, percent, points

        found, accuracy = [], artifact["accuracy"]
        if accuracy is not None and accuracy["drop_top1"] > self.max_drop:
            found.append(f"loses {points(accuracy['drop_top1'])} points of top-1, max_drop is {points(self.max_drop)}")
        if accuracy is not None and accuracy["agreement"] < self.min_agreement:
            least = percent(self.min_agreement)
            found.append(f"gives fp32's answer on {percent(accuracy['agreement'])} of images, min_agreement is {least}")
        for row in artifact["outputs"] if accuracy is None else ():
            if row["cosine_mean"] < self.min_cosine:
                said = cosine(row["cosine_mean"])
                found.append(f"{row['name']} has a mean cosine of {said} to fp32's, min_cosine is {self.min_cosine:g}")
        if self.max_mb is not None and artifact["bytes"] > self.max_mb * 1e6:
            found.append(f"takes {megabytes(artifact['bytes'])}, max_mb is {self.max_mb:g}")
        slowest = p95_ms(artifact["latency"])
        if self.max_p95_ms is not None and slowest is not None and slowest > self.max_p95_ms:
            found.append(f"takes {milliseconds(slowest)} ms at the 95th percentile, max_p95_ms is {self.max_p95_ms:g}")
        return found

    def limits(self) -> dict[str, float | None]:
        """In the words of `cspedge.report.verdict`."""
        return {
            "max_drop": self.max_drop,
            "low_agreement": self.min_agreement,
            "low_cosine": self.min_cosine,
            "max_bytes": None if self.max_mb is None else self.max_mb * 1e6,
            "max_p95_ms": self.max_p95_ms,
        }


@dataclass(frozen=True, kw_only=True)
class Target:
    """One deployment target, from `targets/<name>/target.toml`.

    cost: what its runtime pays for a layer in float, which decides what the accuracy loop keeps there;
    options: of the runtime, also in the manifest; common: options that `--placement common` adds when it lowers, so
    that the same numbers come out; saturated_check: options that the comparison with PT2E adds where u8 x s8 products
    saturate (x86 with AVX2 and no VNNI). It then shows that the file computes the graph; what the CPU's own kernels
    make of it is what the validation measures.
    """

    name: str
    backend: str
    summary: str
    platforms: tuple[str, ...]
    precision: Precisions
    placement: Placement
    floor: Floor = Floor()
    tolerance: Tolerance = Tolerance()
    budget: Budget = Budget()
    cost: Cost = field(default_factory=Cost)
    options: Mapping[str, object] = field(default_factory=dict)
    common: Mapping[str, object] = field(default_factory=dict)
    saturated_check: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CalibrationImages:
    """How many images, and how they are drawn: `stratified` by class, or `uniform`."""

    count: int = 512
    sampling: str = "stratified"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"calibration needs at least 1 image, not {self.count}")
        if self.sampling not in {"stratified", "uniform"}:
            raise UsageError(f"sampling {self.sampling!r}; allowed: stratified, uniform")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A calibration recipe, from `calib/<name>.toml` or a file of the user's; mixed None: all that can be is int8."""

    name: str
    summary: str
    images: CalibrationImages = CalibrationImages()
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)
    correct: CorrectOptions = field(default_factory=CorrectOptions)
    learn: LearnOptions = field(default_factory=LearnOptions)
    mixed: MixedOptions | None = None

    @property
    def quantizer(self) -> QuantizerOptions:
        """What decides the numbers, besides the images."""
        return QuantizerOptions(quantize=self.quantize, correct=self.correct, learn=self.learn)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """`cspedge.toml`: defaults for the command line's options; what is typed there wins."""

    model: str | None = None
    weights: str | None = None
    labels: str | None = None
    head: Head | None = None
    img_size: int | None = None
    calib: str | None = None
    val: str | None = None
    workspace: str | None = None
    out: str | None = None
    target: tuple[str, ...] = ()
    precision: tuple[Precision, ...] = ()
    recipe: str | None = None
    placement: PlacementChoice | None = None
    calib_images: int | None = None
    allow_overlap: bool | None = None
    max_unreadable: float | None = None
    threads: int | None = None
    sweep: tuple[int, ...] = ()
    seed: int | None = None
    no_thumbnails: bool | None = None
    robustness: int | None = None
    device: str | None = None
    budget: Budget | None = None


def load_target(name: str) -> Target:
    """Reads one target by name. Raises UsageError for an unknown name or a file that does not parse."""
    path = target_file(name)
    return parse(_read(path), Target, where=f"targets/{name}/target.toml", given={"name": name})


def known_placements() -> tuple[Placement, ...]:
    """The distinct placements of all known targets: what corrections and learning see, whatever a run is asked for.

    The numbers are the same for one target and for four.
    """
    from cspedge.resources import target_names

    return distinct([load_target(name).placement for name in target_names()])


def common_placement() -> Placement:
    """What every known target can do: only what all fuse is fused, and what one wants quantized all quantize.

    dtype and the number of nodes stay each target's own; the codes are the same.
    """
    from cspedge.resources import target_names

    placements = [load_target(name).placement for name in target_names()]
    shared = set.intersection(*(set(p.fuse) for p in placements))
    return Placement(
        fuse=tuple(name for name in placements[0].fuse if name in shared),
        quantize_output=any(p.quantize_output for p in placements),
        int8_output=any(p.int8_output for p in placements),
        channel_scales=all(p.channel_scales for p in placements),
    )


def with_placement(target: Target, common: Placement) -> Target:
    """The target with another placement than its own, and no price of its own for an island: all keep the same."""
    own = target.placement
    return replace(
        target,
        placement=replace(common, activation_dtype=own.activation_dtype, one_user=own.one_user),
        cost=Cost(),
        options={**target.options, **target.common},
    )


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a recipe by name, or by path when it ends in .toml. Raises UsageError."""
    path = recipe_file(name_or_path)
    return parse(_read(path), Recipe, where=path.name, given={"name": path.stem})


def load_config(path: Path) -> RunConfig:
    """Reads `cspedge.toml`. Raises UsageError naming an unknown key, the file and the valid keys."""
    if not path.is_file():
        raise UsageError(f"configuration file {str(path)!r} does not exist")
    return parse(_read(path), RunConfig, where=str(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{str(path)!r} is not valid TOML: {error}") from error


def parse(data: Mapping[str, Any], cls: type[T], *, where: str, given: Mapping[str, Any] | None = None) -> T:
    """Builds the frozen dataclass `cls` from a parsed table, checking names and types of every key.

    given: fields that do not come from the file and may not stand in it.
    """
    given = dict(given or {})
    hints = typing.get_type_hints(cls)
    names = {f.name: f for f in fields(cls) if f.name not in given}  # type: ignore[arg-type]
    unknown = [k for k in data if k not in names]
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r} in {where}; valid keys: {', '.join(sorted(names))}")
    missing = [n for n, f in names.items() if n not in data and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise UsageError(f"key {missing[0]!r} is missing in {where}; it needs {', '.join(missing)}")
    values = {k: _convert(v, hints[k], f"{where}, key {k!r}") for k, v in data.items()}
    try:
        return cls(**values, **given)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        return _convert(value, inner[0], where)
    if origin is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{where} is {value!r}; a list is wanted")
        return tuple(_convert(v, typing.get_args(hint)[0], where) for v in value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise UsageError(f"{where} is {value!r}; a table is wanted")
        return value
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise UsageError(f"{where} is {value!r}; a table is wanted")
        return parse(value, typing.cast("type[Any]", hint), where=where)
    if isinstance(hint, type) and issubclass(hint, Enum):
        allowed = [str(m.value) for m in hint]
        if value not in allowed:
            raise UsageError(f"{where} is {value!r}; allowed: {', '.join(allowed)}")
        return hint(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise UsageError(f"{where} is {value!r}; {hint.__name__} is wanted")
    return value
