"""Features and embeddings of one net of each family on every target: the output that is furthest off, as Markdown.

    python benchmarks/heads.py ../shared [--only lcnet_100 ...] [--work bench-out/heads]

Weights as in `models.py`, at 96 px; 64 photographs calibrate, 64 others compare.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from models import random_reference, wanted  # of this folder

from cspedge import api
from cspedge.errors import CspedgeError

FAMILIES = ("lcnet_100", "ese_vovnet19b_dw", "cspresnext50", "cspdarknet53", "cspresnet50", "fbnetv3_b")
PIXELS, PHOTOGRAPHS = 96, 64
MATCH = {True: "equal", False: "DIFFER", None: ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--only", nargs="+", default=FAMILIES, metavar="MODEL")
    parser.add_argument("--work", type=Path, default=Path("bench-out/heads"))
    options = parser.parse_args()
    print(
        "| model | head | artifact | outputs | SQNR dB to PT2E | to fp32 | cosine mean | least | same neighbour ",
        end="",
    )
    print("| encodings |\n|---|---|---|--:|--:|--:|--:|--:|--:|---|")
    data = options.shared / "data" / "caltech101"
    for name in options.only:
        folder = options.work / name
        if not (folder / "model.safetensors").is_file():
            random_reference(name, folder, data / "train", PIXELS)
        for head in ("features", "embedding"):
            measure(folder, head, data)


def measure(folder: Path, head: str, data: Path) -> None:
    """Prints a row for each artifact."""
    reference = api.load_reference(f"local-dir:{folder}", head=head)
    calibration = api.collect_calibration(reference, data / "train", count=PHOTOGRAPHS)
    photographs = api.collect_calibration(reference, data / "val", count=PHOTOGRAPHS, seed=1)
    quantized = api.quantize(reference, calibration, recipe="fast")
    for target, precision in wanted():
        if (target, precision) == ("coreml", "fp32"):
            continue  # its float artifact is fp16
        start = f"| {folder.name} | {head} | {target}/{precision} | "
        with tempfile.TemporaryDirectory() as out:
            try:
                artifact = api.lower(quantized, target, precision, out=out, check_images=photographs.images[:8])
                found = api.evaluate(artifact, photographs, reference)
            except CspedgeError as error:
                print(f"{start}failed: {error} |" + " |" * 6, flush=True)
                continue
        worst = min(found.outputs, key=lambda row: row.cosine_mean)
        same = worst.neighbour_agreement
        cells = [
            str(len(found.outputs)),
            *("equal" if v is None else f"{v:.1f}" for v in (artifact.check_sqnr_db, worst.sqnr_db)),
            f"{worst.cosine_mean:.4f}",
            f"{worst.cosine_min:.4f}",
            "" if same is None else f"{same:.0%}",
            MATCH[artifact.audit.encodings_match if artifact.audit else None],
        ]
        print(start + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
