"""Every runtime's own int8 tools and cspedge side by side: same reference, calibration images, validation images.

    make peers    # once: NNCF, in an environment of its own
    .venv-peers/bin/python benchmarks/peers.py ../shared --recipe default [--references FOLDER ...] [--only nncf ...]

Prints a Markdown table for each reference (default: those in SHARED/references; `digits` is the built-in one). Each
flow runs in a process of its own. A row is a JSON line in --out, and a failed flow is one too; rows that are there for
the same weights, images, versions, instruction set and (cspedge's) code are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from peer_flows import OURS, Flow, flows  # of this folder
from peer_rows import COMMON, Material, Wanted, collect, failure, measure

from cspedge.errors import CspedgeError
from cspedge.stages import tool_versions

DIGITS = "digits"
COLUMNS = (
    *("flow", "runtime", "top-1", "drop, points [95 %]", "agrees [95 %]", "SQNR dB", "MB"),
    *("quantize s (CPU s)", "lower s", "p50 ms"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, nargs="?", help="folder with data/caltech101 and references")
    parser.add_argument("--references", nargs="+", metavar="FOLDER", help=f"in timm's hub layout, or {DIGITS!r}")
    parser.add_argument("--recipe", action="append", default=[], help="of cspedge's; repeatable, none: peers only")
    parser.add_argument("--only", nargs="+", metavar="FLOW")
    parser.add_argument("--images", type=int, default=512, help="that calibrate, whatever the recipe says")
    parser.add_argument("--val-limit", type=int, metavar="N", help="validate on N images only; the table says so")
    parser.add_argument("--latency", action="store_true", help="time single images too, in rows that are measured now")
    parser.add_argument("--again", action="store_true", help="measure rows that are there anew")
    parser.add_argument("--out", type=Path, default=Path("bench-out/peers.jsonl"))
    parser.add_argument("--work", type=Path, default=Path("bench-out/peers"), help="where prepared images are kept")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)  # reference, flow, its runtimes
    options = parser.parse_args()
    if options.shared is None and options.references != [DIGITS]:
        parser.error(f"SHARED is needed (or --references {DIGITS})")
    known = flows(options.recipe)
    names = options.only or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown flow {unknown[0]!r}; known: {', '.join(known)}")
    if options.child is not None:
        child(options, known)
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        for reference in options.references or sorted(map(str, (options.shared / "references").glob("*/"))):
            compare(options, reference, {name: known[name] for name in names})
    except CspedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def material(options: argparse.Namespace, reference: str) -> Material:
    """The images and answers of one reference. Raises CspedgeError."""
    builtin = reference == DIGITS
    folder = Path(reference.removeprefix("local-dir:")).resolve()
    data = None if builtin else options.shared / "data" / "caltech101"
    return collect(
        Wanted(
            model=None if builtin else f"local-dir:{folder}",
            train=data and data / "train",
            val=data and data / "val",
            images=options.images,
            val_limit=options.val_limit,
            work=options.work,
        )
    )


def rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")


def missing(options: argparse.Namespace, key: str, flow: Flow, start: int = 0) -> list[str]:
    """Runtimes of a flow that have no row from line `start` on."""
    done = {row["runtime"] for row in list(rows(options.out))[start:] if row["key"] == key}
    return [runtime for runtime in flow.runs if runtime not in done]


def compare(options: argparse.Namespace, reference: str, chosen: dict[str, Flow]) -> None:
    """One child process for each flow, and another one where it ended before its rows; then the table."""
    found = material(options, reference)
    head, keys = found.head(), {name: found.key(name, flow) for name, flow in chosen.items()}
    del found  # a child has its own
    start = len(list(rows(options.out))) if options.again else 0
    for name, flow in chosen.items():
        while left := missing(options, keys[name], flow, start):
            print(f"{head['reference']}: {flow.title} on {', '.join(left)}", file=sys.stderr, flush=True)
            command = [sys.executable, *sys.argv, "--child", reference, name, *left]
            done = subprocess.run(command, stdout=sys.stderr, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
            if left == missing(options, keys[name], flow, start):
                reason = failure(f"the process ended with code {done.returncode}")
                append(options.out, {"key": keys[name], "flow": name, "runtime": left[0]} | reason)
    print(table(head, chosen, keys, list(rows(options.out))), flush=True)


def child(options: argparse.Namespace, known: dict[str, Flow]) -> None:
    """Measures what the parent asks for, a row at a time."""
    reference, name, *runtimes = options.child
    found = material(options, reference)
    about = {"key": found.key(name, known[name]), "flow": name, "reference": found.loaded.info.name}
    for row in measure(found, known[name], runtimes, latency=options.latency):
        append(options.out, about | row)


def table(head: dict[str, Any], chosen: dict[str, Flow], keys: dict[str, str], found: list[dict[str, Any]]) -> str:
    """The newest row of every artifact as Markdown, by runtime, and where a peer is ahead of cspedge."""
    latest = {(row["key"], row["runtime"]): row for row in found}
    placed = [
        (runtime, name, flow.title, latest[keys[name], runtime])
        for name, flow in chosen.items()
        for runtime in flow.runs
        if (keys[name], runtime) in latest
    ]
    placed.sort(key=lambda item: item[0])  # stable: flows stay in their order
    lines = [
        f"## {head['reference']}, {head['pixels']} px\n",
        f"fp32 top-1 {head['top1']:.2%} on {head['n']} validation images{' (a sample)' if head['limited'] else ''}; "
        f"{head['calibration']} calibration images (SHA-256 {head['calibration_sha256'][:12]}); "
        f"one thread of {head['cpu']} ({', '.join(head['isa'])}); {', '.join(versions(chosen.values()))}\n",
        f"| {' | '.join(COLUMNS)} |",
        "|---|---|" + "--:|" * (len(COLUMNS) - 2),
        *(f"| {' | '.join(cells(title, row))} |" for _, _, title, row in placed),
        "",
        *behind([(runtime, name, title, row) for runtime, name, title, row in placed if row["status"] == "ok"]),
    ]
    return "\n".join(lines)


def versions(chosen: Iterable[Flow]) -> list[str]:
    """What the rows were made with: `nncf 3.4.0`, ..."""
    packages = {*COMMON, *(package for flow in chosen for package in flow.packages)}
    return [f"{name} {version}" for name, version in tool_versions(*sorted(packages)).items()]


def cells(title: str, row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    if row["status"] != "ok":
        return [title, row["runtime"], f"failed: {row['reason']}".replace("|", "\\|"), *[""] * (len(COLUMNS) - 3)]
    where = row["runtime"] + ("" if row["evidence"] == "measured" else f" ({row['evidence']})")
    low, high = (f"{bound * 100:+.2f}" for bound in row["drop_ci95"])
    least, most = (f"{bound:.1%}" for bound in row["agreement_ci95"])
    return [
        title,
        where,
        f"{row['top1']:.2%}",
        f"{row['drop_top1'] * 100:+.2f} [{low}, {high}]",
        f"{row['agreement']:.2%} [{least}, {most}]",
        "equal" if row["sqnr_db"] is None else f"{row['sqnr_db']:.2f}",
        f"{row['bytes'] / 1e6:.2f}",
        f"{row['quantize_s']:.0f} ({row['quantize_cpu_s']:.0f})",
        f"{row['lower_s']:.0f}",
        "" if row["p50_ms"] is None else f"{row['p50_ms']:.2f}",
    ]


def behind(placed: list[tuple[str, str, str, dict[str, Any]]]) -> Iterator[str]:
    """A line for each figure in which a peer is ahead of one of our recipes on the same runtime."""
    for runtime, name, title, row in placed:
        peers = [item for item in placed if item[0] == runtime and not item[1].startswith(OURS)]
        if not name.startswith(OURS) or not peers:
            continue
        for figure in ("agreement", "sqnr_db"):
            own, (_, _, best_title, best) = value(row, figure), max(peers, key=lambda item: value(item[3], figure))
            if value(best, figure) > own:
                yield (
                    f"- {runtime}: {best_title} is ahead of {title} in {figure}: {value(best, figure):.4g} to {own:.4g}"
                )


def value(row: dict[str, Any], figure: str) -> float:
    """A figure to compare by; None stands for an SQNR without noise."""
    return float("inf") if row[figure] is None else float(row[figure])


if __name__ == "__main__":
    main()
