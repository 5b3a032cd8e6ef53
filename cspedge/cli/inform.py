"""`cspedge models`, `targets`, `doctor`: what exists, what is available here and why not."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cspedge.cli.console import print_json, quiet_stdout, stdout_console
from cspedge.cli.options import Json


def register(app: typer.Typer) -> None:
    app.command("models")(models)
    app.command("targets")(targets)
    app.command("doctor")(doctor)


def models(
    pattern: Annotated[
        str | None, typer.Argument(help="timm names to list, with * (default: first-class models).")
    ] = None,
    json: Json = False,
) -> None:
    """List models: the first-class ones, or any timm names that match a pattern."""
    from rich.table import Table

    from cspedge.models import mmpretrain
    from cspedge.models.catalog import SOURCE, catalog

    with quiet_stdout():
        rows = catalog(pattern)
    if json:
        print_json(rows)
        return
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("model", overflow="fold")
    for heading in ("params", "GMACs", "input", "crop"):
        table.add_column(heading, justify="right")
    table.add_column("resize")
    for heading in ("top-1", "top-5"):
        table.add_column(heading, justify="right")
    table.add_column("weights")
    for row in rows:
        first = (row["name"], _figure(row["params"], 1e-6, 2)), (row["interpolation"] or "", row["weights"])
        for at in row["sizes"]:
            (name, params), (interpolation, weights) = first if at is row["sizes"][0] else (("", ""), ("", ""))
            size = (_figure(at["gmacs"], 1, 2), str(at["img_size"]), str(at["crop_pct"] or ""))
            table.add_row(name, params, *size, interpolation, _figure(at["top1"]), _figure(at["top5"]), weights)
    stdout_console().print(table)
    print("params: millions; top-1, top-5: published fp32, percent; -: none, or not counted")
    print(f"  ({SOURCE})")
    print("weights: cached here; hub: fetched when used; none: timm publishes none")
    print("with --weights FILE also mmpretrain:NAME, NAME being one of")
    for name in mmpretrain.names():
        print(f"  {name}")


def _figure(value: float | None, factor: float = 1.0, digits: int = 1) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"


def target_rows() -> list[dict[str, Any]]:
    """Every target with its backend's availability here."""
    from cspedge.backends import get_backend
    from cspedge.config import load_target
    from cspedge.resources import target_names

    rows = []
    for name in target_names():
        target = load_target(name)
        available = get_backend(target.backend).availability()
        rows.append(
            {
                "name": name,
                "backend": target.backend,
                "summary": target.summary,
                "platforms": list(target.platforms),
                "precisions": [str(p) for p in target.precision.supported],
                "default": [str(p) for p in target.precision.default],
                "available": available.ok,
                "reason": available.reason,
                "versions": dict(available.versions),
            }
        )
    return rows


def targets(json: Json = False) -> None:
    """List deployment targets and whether each can be made here."""
    from rich.table import Table

    with quiet_stdout():
        rows = target_rows()
    if json:
        print_json(rows)
        return
    table = Table("target", "makes", "precisions", "here", box=None)
    for row in rows:
        here = ", ".join(f"{k} {v}" for k, v in row["versions"].items()) if row["available"] else row["reason"]
        table.add_row(row["name"], row["summary"], ", ".join(row["precisions"]), here)
    stdout_console().print(table)


def doctor(json: Json = False) -> int:
    """Check this machine: runtimes, versions, CPU, and what each lack means. Exit code 4 where a runtime is missing."""
    from cspedge.devices.host import environment, saturates_u8s8

    with quiet_stdout():
        rows, env = target_rows(), environment()
    missing = [r for r in rows if not r["available"]]
    advice = []
    if saturates_u8s8(tuple(env["isa"])):
        advice.append("AVX2 without VNNI: u8 x s8 products may saturate in OpenVINO and ONNX Runtime on this CPU")
    if json:
        print_json({"environment": env, "targets": rows, "advice": advice})
    else:
        for key, value in env.items():
            print(f"{key:<12} {', '.join(value) if isinstance(value, list) else value}")
        for row in rows:
            print(f"{row['name']:<12} {'available' if row['available'] else 'unavailable: ' + row['reason']}")
        for line in advice:
            print(f"note: {line}")
    return 4 if missing else 0
