"""What is said of the fp32 reference: its own figures, and how it was made (`reference.trained_on`).

`trained_on` is a checkpoint's provenance.json as `cspedge train` or anybody else wrote it: free-form JSON. Known keys
get words and units; the rest is listed as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cspedge.report import words
from cspedge.report.facts import Fact, flatten, is_digest, listed, spoken, value_text
from cspedge.types import Head

_HEADS = {Head.LOGITS: "logits", Head.FEATURES: "feature maps", Head.EMBEDDING: "embedding"}
_FIRST = ("data", "recipe", "device", "device_name", "precision", "start", "wall_s", "images_per_s", "fp32")
_TABLES = ("recipe", "versions")  # long objects, which get a list of their own
_IMAGES = {"train": "Training images", "val": "Held-out images"}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How the reference was made, as the page shows it.

    data: the training data in words or None; facts: everything known; tables: (heading, facts); note: what to mind.
    """

    data: str | None
    facts: list[Fact]
    tables: list[tuple[str, list[Fact]]]
    note: str | None


def reference_facts(report: Mapping[str, Any]) -> list[Fact]:
    """The model and what was measured of it here, beside what its provenance claims."""
    model, reference = report["model"], report["reference"]
    facts: list[Fact] = [
        ("Model", model["name"]),
        ("Architecture", model["architecture"]),
        ("Head", _head(model)),
        ("Parameters", f"{model['params']:,}"),
    ]
    if model["head"] == Head.LOGITS:
        facts.append(("Classes", model["num_classes"]))
    if reference["top1"] is not None:
        interval = _interval(reference["top1"], reference["n"])
        facts += [
            ("Top-1 here", f"{words.percent(reference['top1'])}{_between(interval)}, {reference['n']:,} images"),
            *_claimed(reference["trained_on"]),
            ("Top-5 here", words.percent(reference["top5"])),
            ("Macro top-1 here", words.percent(reference["macro_top1"])),
        ]
    else:
        facts += [("Images", f"{reference['n']:,}"), *_claimed(reference["trained_on"])]
    return [*facts, ("Ran on", reference["device"]), ("Weights SHA-256", model["weights_sha256"])]


def provenance(reference: Mapping[str, Any]) -> Provenance | None:
    """Reads `reference.trained_on`; None where there is none."""
    trained = reference["trained_on"]
    if not trained:
        return None
    order = [key for key in _FIRST if key in trained] + [key for key in trained if key not in _FIRST]
    data = trained.get("data")
    tables = [key for key in _TABLES if isinstance(trained.get(key), Mapping) and trained[key]]
    facts = [fact for key in order if key not in tables for fact in _facts(key, trained[key])]
    return Provenance(
        data=data if isinstance(data, str) and data.strip() else None,
        facts=facts,
        tables=[(spoken(key), listed(trained[key])) for key in tables],
        note=_differs(reference),
    )


def _interval(share: float, n: int) -> tuple[float, float] | None:
    """The 95 % interval of a share of n images; None for no images."""
    from cspedge.evaluate.stats import share_interval

    return share_interval(min(n, round(share * n)), n) if n > 0 else None


def _head(model: Mapping[str, Any]) -> str:
    outputs = model["outputs"]
    name = _HEADS.get(model["head"], model["head"])
    if model["head"] == Head.FEATURES:
        return f"{name}, {len(outputs)} level{'s' * (len(outputs) != 1)}"
    return f"{name}, {outputs[0]['shape'][0]:,} values" if model["head"] == Head.EMBEDDING else name


def _facts(key: str, value: Any) -> list[Fact]:
    """One entry of the provenance."""
    if key == "fp32" and isinstance(value, Mapping):
        return [fact for name, split in value.items() for fact in _accuracy(name, split)]
    if key == "start":
        return [("Started from", "scratch")] if value is None else _prefixed("Started from", value)
    if key == "wall_s" and _number(value):
        return [("Wall time", words.seconds(value))]
    if key == "images_per_s" and _number(value):
        return [("Images per second", f"{value:,.0f}" if value >= 100 else f"{value:.1f}")]
    if key in _IMAGES and isinstance(value, Mapping):
        return _prefixed(_IMAGES[key], value)
    if isinstance(value, Mapping):
        return listed({key: value})
    return [(spoken(key), value if is_digest(value) else value_text(value))]


def _prefixed(label: str, value: Any) -> list[Fact]:
    """An object whose `n` or `name` is what the label asks for; the rest follows under the same label."""
    if not isinstance(value, Mapping):
        return [(label, value if is_digest(value) else value_text(value))]
    rest = [(key, item) for key, item in flatten(value).items() if item != []]
    facts: list[Fact] = []
    for key, item in rest:
        name = label if key in {"n", "name"} else f"{label}, {spoken(key) if 'sha' in key else spoken(key).lower()}"
        count = f"{item:,}" if isinstance(item, int) and not isinstance(item, bool) else value_text(item)
        facts.append((name, item if is_digest(item) else count))
    return facts


def _accuracy(name: str, split: Any) -> list[Fact]:
    """fp32 accuracy on one split: `{top1, top5, macro_top1, n}` and intervals `{..}_ci95`, fractions of 1."""
    if not isinstance(split, Mapping):
        return listed({"fp32": {name: split}})
    label = f"fp32, {name}"
    facts: list[Fact] = []
    left = dict(split)
    for key, word in (("top1", "top-1"), ("top5", "top-5"), ("macro_top1", "macro top-1")):
        if _fraction(left.get(key)):
            interval = _pair(left.pop(f"{key}_ci95", None))
            facts.append((f"{label} {word}", f"{words.percent(left.pop(key))}{_between(interval)}"))
    if isinstance(left.get("n"), int):
        facts.append((f"{label} images", f"{left.pop('n'):,}"))
    return facts + [(f"{label} {spoken(key).lower()}", value_text(item)) for key, item in flatten(left).items()]


def _claim(trained: Any) -> tuple[float, int | None, tuple[float, float] | None] | None:
    """Top-1, images and interval of the provenance: of `val`, else of the first split that has them."""
    splits = trained.get("fp32") if isinstance(trained, Mapping) else None
    if not isinstance(splits, Mapping):
        return None
    for split in (splits.get("val"), *splits.values()):
        if isinstance(split, Mapping) and _fraction(split.get("top1")):
            n = split["n"] if isinstance(split.get("n"), int) and split["n"] > 0 else None
            given = _pair(split.get("top1_ci95"))
            return split["top1"], n, given or (_interval(split["top1"], n) if n else None)
    return None


def _claimed(trained: Any) -> list[Fact]:
    claim = _claim(trained)
    if claim is None:
        return []
    top1, n, interval = claim
    return [("Top-1 when trained", f"{words.percent(top1)}{_between(interval)}{f', {n:,} images' if n else ''}")]


def _differs(reference: Mapping[str, Any]) -> str | None:
    """A sentence where the top-1 measured here and the one in the provenance cannot be of the same kind of images."""
    claim = _claim(reference["trained_on"])
    if claim is None or reference["top1"] is None:
        return None
    there, here = claim[2], _interval(reference["top1"], reference["n"])
    if there is None or here is None or (there[0] <= here[1] and here[0] <= there[1]):
        return None
    more = "more" if reference["top1"] > claim[0] else "less"
    return (
        f"Top-1 here is {more} than its provenance says, by more than both 95 % intervals allow: the validation images "
        "are others than those it was measured on, or are prepared in another way."
    )


def _between(interval: tuple[float, float] | None) -> str:
    """' (95 % interval 59.0 to 64.2 %)'."""
    if interval is None:
        return ""
    low, high = (words.percent(bound) for bound in interval)
    return f" (95 % interval {low.removesuffix(' %')} to {high})"


def _pair(value: Any) -> tuple[float, float] | None:
    fits = isinstance(value, list) and len(value) == 2 and _each_fraction(value) and value[0] <= value[1]
    return (value[0], value[1]) if fits else None


def _each_fraction(values: Iterable[Any]) -> bool:
    return all(_fraction(value) for value in values)


def _fraction(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
