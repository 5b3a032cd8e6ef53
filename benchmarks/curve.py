"""How many calibration images are needed: drop and agreement with fp32 over their number, several seeds each.

    python benchmarks/curve.py ../shared [--reference lcnet_050.caltech101] [--counts 32,128,512,2048] [--seeds 3]
        [--recipe default] [--out curve.jsonl] [--plot docs/curve.svg]

Each point is a quantization of its own, all in int8 (without the accuracy loop), on other images, and judged on all of
val/ by PT2E's simulation of two placements, which are what the four runtimes compute but for their rounding. Points
that stand in the output file are not computed again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

PLACEMENTS = ("openvino", "executorch")


def point(
    reference: Any, train: str, validation: Any, logits: Any, count: int, seed: int, recipe: str
) -> dict[str, Any]:
    """One quantization, by target whose placement was simulated: drop and agreement as fractions, SQNR in dB."""
    import numpy as np
    import torch

    from cspedge import api
    from cspedge.config import load_target
    from cspedge.evaluate.metrics import accuracy
    from cspedge.quantize.placement import place

    images = api.collect_calibration(reference, train, count=count, seed=seed)
    model = api.quantize(reference, images, recipe=recipe)
    row: dict[str, Any] = {"count": count, "seed": seed, "recipe": recipe}
    for name in PLACEMENTS:
        placed, found = place(model, load_target(name).placement), []
        for start in range(0, len(validation), 64):
            batch = validation.images[start : start + 64].astype(np.float32) / np.float32(255)
            found.append(placed(torch.from_numpy(batch))[0].numpy())
        measured = accuracy(np.concatenate(found), logits, validation.labels)
        row[name] = {"drop": measured.drop_top1, "agreement": measured.agreement, "sqnr_db": measured.sqnr_db}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and range over the seeds, as Markdown."""
    head = [f"{name}: {what}" for name in PLACEMENTS for what in ("drop, points", "agrees", "SQNR dB")]
    lines = ["| images | seeds | " + " | ".join(head) + " |", "|---|---|" + "---|" * len(head)]
    for count in sorted({row["count"] for row in rows}):
        chosen, cells = [row for row in rows if row["count"] == count], []
        for name in PLACEMENTS:
            for key, factor, form in (("drop", 100, "+.2f"), ("agreement", 100, ".1f"), ("sqnr_db", 1, ".1f")):
                values = [row[name][key] * factor for row in chosen]
                mean = sum(values) / len(values)
                cells.append(f"{mean:{form}} [{min(values):{form}}, {max(values):{form}}]")
        lines.append(f"| {count} | {len(chosen)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Agreement over the number of images, a line and a band for each placement."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cspedge"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.4))
    counts = sorted({row["count"] for row in rows})
    for name in PLACEMENTS:
        values = [[100 * row[name]["agreement"] for row in rows if row["count"] == count] for count in counts]
        axes.plot(counts, [sum(v) / len(v) for v in values], marker="o", label=f"{name}'s placement")
        axes.fill_between(counts, [min(v) for v in values], [max(v) for v in values], alpha=0.2)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_xlabel("calibration images")
    axes.set_ylabel("agreement with fp32, %")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--reference", default="lcnet_050.caltech101")
    parser.add_argument("--counts", default="32,64,128,256,512,1024,2048")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--out", type=Path, default=Path("curve.jsonl"))
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()

    from cspedge import api

    data = options.shared / "data" / "caltech101"
    reference = api.load_reference(f"local-dir:{(options.shared / 'references' / options.reference).resolve()}")
    validation = api.collect_validation(reference, data / "val")
    logits = api.reference_logits(reference, validation)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for seed in range(options.seeds):
        for count in (int(text) for text in options.counts.split(",")):
            if any((r["count"], r["seed"], r["recipe"]) == (count, seed, options.recipe) for r in rows):
                continue
            rows.append(point(reference, str(data / "train"), validation, logits, count, seed, options.recipe))
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    rows = [row for row in rows if row["recipe"] == options.recipe]
    print(f"{options.reference}, recipe {options.recipe}, n = {len(validation)}\n\n{table(rows)}")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
