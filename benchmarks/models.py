"""Quantizes, lowers, runs and times many models on every target, one row of figures for each artifact.

    python benchmarks/models.py ../shared --out models.jsonl [--only lcnet_050 ...] [--img-size 96] [--recipe fast]
    python benchmarks/models.py --table models.jsonl [--brief]

Each model runs in a process of its own, so that a runtime that crashes costs one row. A row is a JSON line in --out;
rows that are there already are not made again. Weights: the trained reference in SHARED/references where there is one
of that architecture, else timm's random initialisation (`random_reference`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

FIRST_CLASS = (
    *("lcnet_035", "lcnet_050", "lcnet_075", "lcnet_100", "lcnet_150", "fbnetv3_b", "fbnetv3_d", "fbnetv3_g"),
    *("ese_vovnet19b_dw", "ese_vovnet39b", "cspdarknet53", "cspresnet50", "cspresnext50"),
)
OTHERS = (
    *("resnet18", "resnet50d", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_small", "efficientnet_b0"),
    *("efficientnet_lite0", "tf_efficientnet_lite0", "regnetx_004", "regnety_004", "densenet121", "convnext_atto"),
    *("repvgg_a0", "mobileone_s0", "ghostnet_100", "mixnet_s", "hardcorenas_a", "tinynet_c", "rexnet_100"),
    *("res2net50_14w_8s", "hrnet_w18_small", "dla34", "inception_v3", "xception41", "fastvit_t8", "edgenext_xx_small"),
    *("eca_nfnet_l0", "selecsls42b", "skresnet18", "gernet_s", "resnest14d", "darknet53", "dpn68", "resnetv2_50"),
    *("vgg11_bn", "vit_tiny_patch16_224"),
)
CALIBRATION, COMPARED = 64, 8  # photographs
SMALL = 1e-3  # a layer scale or residual gain that starts below this would hide its whole branch


def wanted() -> list[tuple[str, str]]:
    """(target, precision) of every row: each target's default precisions, and fp32 everywhere."""
    from cspedge.config import load_target
    from cspedge.resources import target_names

    found = []
    for name in target_names():
        target = load_target(name)
        precisions = ["fp32", *(str(p) for p in target.precision.default if p != "fp32")]
        found += [(name, p) for p in precisions if p in target.precision.supported]
    return found


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows in the file so far."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def missing(options: argparse.Namespace, model: str) -> list[tuple[str, str]]:
    """Rows of `model` that are not in the file."""
    done = {(r["target"], r["precision"]) for r in rows(options.out) if r["model"] == model}
    return [row for row in wanted() if row not in done]


def append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")
    print(json.dumps(row), flush=True)


def random_reference(architecture: str, folder: Path, photographs: Path, img_size: int | None) -> None:
    """Writes timm's random initialisation (seed 0) to `folder`, with the spread of activations that training leaves.

    Batch-norm statistics are re-estimated on 64 photographs. Gains and layer scales that start at (nearly) zero start
    at one: a branch that adds nothing tests nothing. Batch-norm shifts start at one as well: with zero a random
    network is chaotic (Yang et al. 2019, arXiv:1902.08129), and rounding grows from layer to layer as in no trained
    one (measured at 96 px: torch's own fp16 has 10 dB SQNR on fbnetv3_b; with shifts of one it has 50).
    """
    import timm
    import torch
    from timm.models import save_for_hf

    from cspedge.data.images import load, scan
    from cspedge.data.sampling import sample
    from cspedge.models.preprocess import resolve, to_float

    torch.manual_seed(0)
    model = timm.create_model(architecture, pretrained=False).eval()
    preprocess = resolve(model.pretrained_cfg)
    if img_size is not None:
        preprocess = replace(preprocess, input_size=(3, img_size, img_size))
    images = scan(photographs)
    chosen = load(images, sample(images, CALIBRATION, seed=2, stratified=True), preprocess)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = name.rpartition(".")[2] in {"weight", "gamma", "gain", "skipinit_gain"} or "scale" in name
            if gain and parameter.dim() <= 1 and float(parameter.abs().max()) < SMALL:
                parameter.fill_(1.0)
        norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the average over all batches
            if norm.affine:
                norm.bias.fill_(1.0)
            norm.train()
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
        for start in range(0, len(chosen), 16) if norms else ():
            model((torch.from_numpy(to_float(chosen.images[start : start + 16])) - mean) / std)
    model.pretrained_cfg["input_size"] = preprocess.input_size
    save_for_hf(model.eval(), str(folder), model_config=None, safe_serialization=True)


def reference_folder(options: argparse.Namespace, model: str) -> tuple[Path, str, int | None]:
    """Where the model's weights lie, what they are (`caltech101` or `random`), and the size where not its own."""
    import timm

    published = timm.get_pretrained_cfg(model).input_size[1]  # the references were trained at smaller ones
    for folder in sorted((options.shared / "references").glob(f"{model}.*")) if options.img_size is None else ():
        if (folder / "model.safetensors").is_file():
            return folder, folder.suffix[1:], published
    folder = options.work / f"{model}{'' if options.img_size is None else f'-{options.img_size}'}"
    if not (folder / "model.safetensors").is_file():
        random_reference(model, folder, options.shared / "data" / "caltech101" / "train", options.img_size)
    return folder, "random", None


def measure(options: argparse.Namespace, model: str) -> None:
    """Appends the missing rows of one model."""
    from cspedge import api
    from cspedge.errors import CspedgeError

    data = options.shared / "data" / "caltech101"
    common: dict[str, Any] = {"model": model, "recipe": options.recipe}
    try:
        folder, common["weights"], img_size = reference_folder(options, model)
        reference = api.load_reference(f"local-dir:{folder}", img_size=img_size)
        common |= {"params": reference.info.params, "img_size": reference.info.preprocess.input_size[1]}
        calibration = api.collect_calibration(reference, data / "train", count=CALIBRATION)
        photographs = api.collect_calibration(reference, data / "val", count=COMPARED, seed=1)
        start = time.perf_counter()
        quantized = api.quantize(reference, calibration, recipe=options.recipe)
        common["quantize_s"] = round(time.perf_counter() - start, 2)
        logits = api.reference_logits(reference, photographs)
    except CspedgeError as error:
        for target, precision in missing(options, model):
            append(options.out, common | _failure(target, precision, str(error)))
        return
    for target, precision in missing(options, model):
        try:
            row = artifact_row(quantized, target, precision, photographs, logits, options.rounds)
        except CspedgeError as error:
            row = _failure(target, precision, str(error))
        append(options.out, common | row)


def artifact_row(
    quantized: Any, target: str, precision: str, photographs: Any, logits: Any, rounds: int
) -> dict[str, Any]:
    """Lowers, runs and times one artifact. Raises CspedgeError."""
    import numpy as np

    from cspedge import api
    from cspedge.evaluate.metrics import max_abs_diff, sqnr_db
    from cspedge.models.preprocess import to_float

    with tempfile.TemporaryDirectory() as out:
        artifact = api.lower(quantized, target, precision, out=out, check_images=photographs.images)
        found = api.open_session(artifact).run(to_float(photographs.images))[0]
        latency = api.bench([artifact], photographs, rounds=rounds, per_round=10).get(artifact.label)
    worst, largest = max_abs_diff(logits, found), float(np.abs(logits).max())
    audit = artifact.audit
    assert audit is not None
    return {
        "target": target,
        "precision": precision,
        "status": "ok",
        "lower_s": artifact.lower_s,
        "bytes": artifact.bytes,
        "max_abs": worst,
        "max_rel": worst / largest,
        "sqnr_pt2e_db": artifact.check_sqnr_db,
        "sqnr_fp32_db": sqnr_db(logits, found),
        "encodings_match": audit.encodings_match,
        "int8_mac_share": audit.int8_mac_share,
        "int8_op_share": audit.int8_op_share,
        "fp32_islands": len(audit.fp32_islands),
        "notes": list(audit.notes),
        "p50_ms": None if latency is None or isinstance(latency, str) else latency.p50_ms,
    }


def _failure(target: str, precision: str, reason: str) -> dict[str, Any]:
    return {"target": target, "precision": precision, "status": "failed", "reason": reason}


def run(options: argparse.Namespace) -> None:
    """One child process for each model, and another one where a runtime ended it."""
    for model in options.only or (*FIRST_CLASS, *OTHERS):
        while left := missing(options, model):
            done = subprocess.run([sys.executable, *sys.argv, "--child", model], check=False)
            if done.returncode and left == missing(options, model):
                reason = f"the process ended with code {done.returncode}"
                append(options.out, {"model": model} | _failure(*left[0], reason))


def table(found: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, in the order of the file's models and of `wanted`."""
    lines = [
        "| model | px | weights | artifact | export s | MB | max abs | max rel | SQNR dB to PT2E | to fp32 "
        "| encodings | int8 MACs | p50 ms |",
        "|---|--:|---|---|--:|--:|--:|--:|--:|--:|---|--:|--:|",
    ]
    order = {pair: i for i, pair in enumerate(wanted())}
    models = list(dict.fromkeys(r["model"] for r in found))
    for row in sorted(found, key=lambda r: (models.index(r["model"]), order[r["target"], r["precision"]])):
        lines.append("| " + " | ".join(_cells(row)) + " |")
    return "\n".join(lines)


def brief(found: list[dict[str, Any]]) -> str:
    """One line for each model: the largest relative difference in fp32, SQNR to PT2E in int8, share of int8 MACs."""
    targets = list(dict.fromkeys(target for target, _ in wanted()))
    names = " | ".join(f"{t} fp32 | int8 dB | int8 MACs" for t in targets)
    lines = [f"| model | px | {names} |", "|---|--:|" + "--:|--:|--:|" * len(targets)]
    for model in dict.fromkeys(r["model"] for r in found):
        mine = {(r["target"], r["precision"]): r for r in found if r["model"] == model}
        cells = [model, str(next(iter(mine.values())).get("img_size", ""))]
        for target in targets:
            fp32, int8 = mine.get((target, "fp32"), {}), mine.get((target, "int8"), {})
            cells.append(f"{fp32['max_rel']:.0e}" if fp32.get("status") == "ok" else fp32.get("status", "-"))
            good = int8.get("status") == "ok"
            cells.append(_decibel(int8["sqnr_pt2e_db"]) if good else int8.get("status", "-"))
            cells.append(f"{int8['int8_mac_share']:.0%}" if good else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    int8 = row["precision"] == "int8"
    cells = [row["model"], str(row.get("img_size", "")), row.get("weights", "")]
    cells.append(f"{row['target']}/{row['precision']}")
    if row["status"] != "ok":
        return [*cells, f"failed: {row['reason']}".replace("|", "\\|"), *[""] * 8]
    return [
        *cells,
        f"{row['lower_s']:.1f}",
        f"{row['bytes'] / 1e6:.2f}",
        "" if int8 else f"{row['max_abs']:.1e}",
        "" if int8 else f"{row['max_rel']:.1e}",
        _decibel(row["sqnr_pt2e_db"]),
        _decibel(row["sqnr_fp32_db"]),
        {True: "equal", False: "DIFFER", None: ""}[row["encodings_match"]],
        f"{row['int8_mac_share']:.1%}" if int8 else "",
        "-" if row["p50_ms"] is None else f"{row['p50_ms']:.2f}",
    ]


def _decibel(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, nargs="?", help="folder with data/caltech101 and references")
    parser.add_argument("--out", type=Path, default=Path("models.jsonl"))
    parser.add_argument("--work", type=Path, default=Path("bench-out/references"), help="where random references go")
    parser.add_argument("--only", nargs="+", metavar="MODEL")
    parser.add_argument("--img-size", type=int, help="another input size than the published one")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--rounds", type=int, default=5, help="of ten timed inferences; at least five")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a finished run")
    parser.add_argument("--brief", action="store_true", help="with --table: a line for each model")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table is not None:
        print((brief if options.brief else table)(list(rows(options.table))))
    elif options.shared is None:
        parser.error("SHARED is needed, or --table FILE")
    elif options.child:
        measure(options, options.child)
    else:
        run(options)


if __name__ == "__main__":
    main()
