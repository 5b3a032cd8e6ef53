"""What `cspedge models` says: counts against the model cards, figures from the published file."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

import pytest

from cspedge.cli.app import app, call
from cspedge.errors import UsageError
from cspedge.models.catalog import FIRST_CLASS, MOST_COUNTED, catalog, params_and_gmacs


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in catalog()}


@pytest.mark.parametrize(
    ("name", "params_m", "gmacs"),
    [
        ("cspdarknet53.ra_in1k", 27.6, 6.6),
        ("ese_vovnet19b_dw.ra_in1k", 6.5, 1.3),
        ("lcnet_050.ra2_in1k", 1.9, 0.05),
        ("fbnetv3_b.ra2_in1k", 8.6, 0.4),
    ],
)
def test_counts_are_the_model_cards(name: str, params_m: float, gmacs: float, rows: dict[str, dict[str, Any]]) -> None:
    row = rows[name]
    assert round(row["params"] / 1e6, 1) == params_m
    assert round(row["sizes"][0]["gmacs"], 2 if gmacs < 0.1 else 1) == gmacs


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [
        ("cspresnet50.ra_in1k", [4.54]),
        ("cspresnext50.ra_in1k", [4.05]),
        ("fbnetv3_b.ra2_in1k", [0.42, 0.55]),
        ("ese_vovnet19b_dw.ra_in1k", [1.34, 2.22]),
    ],
)
def test_counts_at_both_sizes_are_timms_results(name: str, gmacs: list[float], rows: dict[str, dict[str, Any]]) -> None:
    assert [round(at["gmacs"], 2) for at in rows[name]["sizes"]] == gmacs


def test_the_first_class_models(rows: dict[str, dict[str, Any]]) -> None:
    assert list(rows) == ["lcnet_050.digits", *FIRST_CLASS]
    assert {"lcnet_035", "lcnet_150", "fbnetv3_g.ra2_in1k"} <= set(rows)
    assert rows["lcnet_050.digits"]["weights"] == "built in"
    assert {rows[n]["weights"] for n in ("lcnet_035", "lcnet_150")} == {"none"}
    vovnet = rows["ese_vovnet19b_dw.ra_in1k"]
    assert [(at["img_size"], at["crop_pct"]) for at in vovnet["sizes"]] == [(224, 0.875), (288, 0.95)]
    assert [(at["top1"], at["top5"]) for at in vovnet["sizes"]] == [(76.828, 93.276), (77.788, 93.772)]
    assert rows["fbnetv3_d.ra2_in1k"]["sizes"][0]["top1"] is None, "no figure is at hand"


def test_every_published_figure_is_shown(rows: dict[str, dict[str, Any]]) -> None:
    published = tomllib.loads(files("cspedge.models").joinpath("published.toml").read_text(encoding="utf-8"))
    shown = {
        (name, str(at["img_size"])): {"top1": at["top1"], "top5": at["top5"]}
        for name, row in rows.items()
        for at in row["sizes"]
        if at["top1"] is not None
    }
    assert shown == {(name, size): figures for name, at in published.items() for size, figures in at.items()}


def test_parameters_are_those_of_the_built_model(rows: dict[str, dict[str, Any]]) -> None:
    import timm

    built = timm.create_model("lcnet_035")
    assert rows["lcnet_035"]["params"] == sum(p.numel() for p in built.parameters())
    assert params_and_gmacs("lcnet_035", (), num_classes=10)[0] == rows["lcnet_035"]["params"] - 990 * 1281


def test_many_matches_are_listed_without_counting() -> None:
    found = catalog("resnet*")
    assert len(found) > MOST_COUNTED
    assert all(row["params"] is None and row["sizes"][0]["gmacs"] is None for row in found)
    assert [row["name"] for row in catalog("lcnet_0*")] == sorted(n for n in FIRST_CLASS if n.startswith("lcnet_0"))
    with pytest.raises(UsageError, match="no timm model matches"):
        catalog("nothing_like_this*")


def test_the_table_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(app, ["models", "ese_vovnet*"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert max(map(len, table)) <= 80
    line = next(line for line in table if line.startswith("ese_vovnet19b_dw.ra_in1k"))
    assert line.split()[1:8] == ["6.54", "1.34", "224", "0.875", "bicubic", "76.8", "93.3"]
