"""Runs `cspedge run` on every trained reference and prints the README's tables from their report.json.

    python benchmarks/caltech.py ../shared [--out bench-out] [--only lcnet_050.caltech101] [--head features ...]

Figures are whole-process: seconds and peak memory come from the operating system's accounting of the child.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def run(args: list[str], cwd: Path) -> tuple[int, float, float]:
    """Exit code, wall seconds, and peak resident memory in MB of one command."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "cspedge", *args], cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss / 1024


def table(report: dict[str, Any]) -> str:
    """The artifacts as a Markdown table."""
    ref = report["reference"]
    lines = [
        f"fp32 reference: top-1 {ref['top1']:.2%}, top-5 {ref['top5']:.2%}, "
        f"macro top-1 {ref['macro_top1']:.2%}, n = {ref['n']}",
        "",
        "| artifact | MB | top-1 | drop, points [95 %] | agrees | SQNR dB | p50 ms | p90 | vs float [95 %] "
        "| lower s | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["artifacts"]:
        name = f"{row['target']}/{row['precision']}"
        if row["status"] != "ok":
            lines.append(f"| {name} | {row['status']}: {row['reason']} |" + " |" * 9)
            continue
        a, latency = row["accuracy"], row["latency"]
        lo, hi = a["drop_ci95"]
        speed = ""
        if latency and latency["speedup_vs_fp32"]:
            low, high = latency["speedup_ci95"]
            speed = f"{latency['speedup_vs_fp32']:.2f} [{low:.2f}, {high:.2f}]"
        cells = [
            name,
            f"{row['bytes'] / 1e6:.2f}",
            f"{a['top1']:.2%}",
            f"{a['drop_top1'] * 100:+.2f} [{lo * 100:+.2f}, {hi * 100:+.2f}]",
            f"{a['agreement']:.2%}",
            "equal" if a["sqnr_db"] is None else f"{a['sqnr_db']:.1f}",
            f"{latency['p50_ms']:.2f}" if latency else "not run",
            f"{latency['p90_ms']:.2f}" if latency else "",
            speed,
            f"{row['lower_s']:.1f}",
            row["verdict"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def outputs(report: dict[str, Any]) -> str:
    """Every output of every artifact beside the reference's, for heads without logits."""
    lines = [
        "| artifact | MB | output | SQNR dB | cosine mean | least | same neighbour | p50 ms | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["artifacts"]:
        name = f"{row['target']}/{row['precision']}"
        if row["status"] != "ok":
            lines.append(f"| {name} | {row['status']}: {row['reason']} |" + " |" * 7)
        for position, found in enumerate(row["outputs"]):
            first = position == 0
            same, latency = found["neighbour_agreement"], row["latency"]
            cells = [
                name if first else "",
                f"{row['bytes'] / 1e6:.2f}" if first else "",
                found["name"],
                "equal" if found["sqnr_db"] is None else f"{found['sqnr_db']:.1f}",
                f"{found['cosine_mean']:.4f}",
                f"{found['cosine_min']:.4f}",
                "" if same is None else f"{same:.1%}",
                f"{latency['p50_ms']:.2f}" if latency and first else "",
                row["verdict"] if first else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return f"n = {report['reference']['n']}\n\n" + "\n".join(lines)


def matrix(report: dict[str, Any]) -> str:
    """Agreement between all pairs as a Markdown table: of top-1, or of nearest neighbours."""
    if not report["agreement"]:
        return ""
    key = next(k for k in ("top1_agreement", "neighbour_agreement") if k in report["agreement"][0])
    labels = sorted({p["a"] for p in report["agreement"]} | {p["b"] for p in report["agreement"]})
    pairs = {frozenset((p["a"], p["b"])): p[key] for p in report["agreement"]}
    lines = ["| |" + "|".join(labels) + "|", "|---|" + "---|" * len(labels)]
    for a in labels:
        cells = [f"{pairs[frozenset((a, b))]:.1%}" if a != b else "" for b in labels]
        lines.append(f"| {a} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--only")
    parser.add_argument("--head", action="append", choices=("logits", "features", "embedding"))
    options = parser.parse_args()
    data = (options.shared / "data" / "caltech101").resolve()
    for folder in sorted(p for p in (options.shared / "references").iterdir() if p.is_dir()):
        if options.only and folder.name != options.only:
            continue
        for head in options.head or ["logits"]:
            measure(folder, head, data, options.out / folder.name / head)


def measure(folder: Path, head: str, data: Path, work: Path) -> None:
    """One reference and head: a run, the same run again, and its tables."""
    work.mkdir(parents=True, exist_ok=True)
    args = ["run", f"local-dir:{folder.resolve()}", "--head", head]
    args += ["--calib", str(data / "train"), "--val", str(data / "val")]
    code, seconds, peak = run(args, work)
    again_code, again, _ = run(args, work)
    report = json.loads((work / "cspedge-out" / "report.json").read_text(encoding="utf-8"))
    print(f"## {folder.name}, {head}\n")
    print(
        f"first run {seconds:.0f} s (exit {code}), peak {peak:.0f} MB; second run {again:.1f} s (exit {again_code})\n"
    )
    print(table(report) if head == "logits" else outputs(report), "\n")
    print(matrix(report), "\n", flush=True)


if __name__ == "__main__":
    main()
