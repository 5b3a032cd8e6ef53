"""What each part of a bundle takes, and what it gives for that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# What is not an artifact, by the first part of its path.
_PURPOSES = {
    "golden": "{images} images with their answers: what the self-test and every update are checked against",
    "LICENSES": "whose work it is, and on which terms",
    "bom.cdx.json": "the bill of materials",
    "manifest.json": "the contract, the evidence and every file's digest",
    "model.sig": "the signature",
    "labels.txt": "the classes' names",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """name: an artifact's `target/precision`, a file or a folder with its slash; buys: in words."""

    name: str
    bytes: int
    buys: str


def parts(manifest: Mapping[str, Any], files: Mapping[str, int], rows: Iterable[Mapping[str, Any]]) -> tuple[Part, ...]:
    """Artifacts first, then the rest by size. files: bytes by path; rows: `artifacts` of report.json."""
    floats = {row["target"]: row for row in rows if row["precision"] != "int8" and row["status"] == "ok"}
    found = [
        Part(
            name=f"{artifact['target']}/{artifact['precision']}",
            bytes=artifact["bytes"],
            buys=_buys(artifact, floats.get(artifact["target"])),
        )
        for artifact in manifest["artifacts"]
    ]
    inside = {name for artifact in manifest["artifacts"] for name in artifact["files"]}
    rest: dict[str, int] = {}
    for name, size in files.items():
        if name not in inside:
            head, slash, _ = name.partition("/")
            rest[head + slash] = rest.get(head + slash, 0) + size
    images = len(manifest["golden"]["images"])
    for name, size in sorted(rest.items(), key=lambda item: -item[1]):
        purpose = _PURPOSES.get(name.rstrip("/"), "what runs it: --app {app}")
        found.append(Part(name=name, bytes=size, buys=purpose.format(images=images, app=manifest["app"])))
    return tuple(found)


def _buys(artifact: Mapping[str, Any], in_float: Mapping[str, Any] | None) -> str:
    """in_float: the same target's artifact that is not int8, where one was made."""
    evidence = artifact["evidence"]
    accuracy, latency = evidence["accuracy"], evidence["latency"]
    says = [evidence["verdict"]]
    if accuracy is not None:
        points = accuracy["drop_top1"] * 100
        side = "below" if points > 0 else "above"
        versus = f"{abs(points):.2f} points {side} fp32" if round(points, 2) else "as fp32"
        says.append(f"top-1 {accuracy['top1']:.2%} ({versus})")
    if latency is not None:
        says.append(f"{latency['p50_ms']:.2f} ms here")
    if in_float is not None and artifact["precision"] == "int8":
        saved, ratio = in_float["bytes"] - artifact["bytes"], in_float["bytes"] / artifact["bytes"]
        says.append(f"{saved / 1e6:.2f} MB less than in {in_float['precision']}, {ratio:.1f} times smaller")
    return ", ".join(says)
