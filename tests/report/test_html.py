"""report.html as text: self-contained, complete, escaped, the same bytes every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cspedge.errors import UsageError
from cspedge.report import compare_html, load, overview, render
from cspedge.report.compare import compare
from cspedge.report.given import Given

EXAMPLE = Path(__file__).with_name("example_report.json")
VOID = {"meta", "link", "br", "img", "input", "hr"}
FETCHING = {"src", "srcset", "href", "action", "formaction", "data", "poster", "background", "ping", "cite", "manifest"}


class Page(HTMLParser):
    """Collects tags, attributes, ids and text; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture
def report() -> dict[str, Any]:
    return load(EXAMPLE)


@pytest.fixture(scope="module")
def html() -> str:
    return render(load(EXAMPLE))


def assert_inert(page: Page) -> None:
    assert not {"script", "iframe", "object", "embed", "img", "form", "base", "foreignobject"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name.split(":")[-1] in FETCHING:
            assert value.startswith("#") or value == "data:,", (tag, name, value)
        if name == "style":
            assert not re.search(r"url\((?!#)", value), value
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_self_contained(html: str) -> None:
    assert html.lstrip().lower().startswith("<!doctype html>")
    assert len(html.encode()) < 1_500_000
    assert_inert(Page(html))
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].replace("&#39;", "'").startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def test_deterministic(html: str, report: dict[str, Any]) -> None:
    assert render(report) == html
    shuffled = {key: report[key] for key in sorted(report, reverse=True)}
    assert render(shuffled) == html


def test_order_verdict_first(html: str) -> None:
    words = Page(html).words
    marks = [
        "Ship openvino int8",
        "Accuracy, latency, size",
        "All artifacts",
        "Agreement between runtimes",
        "What really runs in int8",
        "Where the figures come from",
        "How to read this",
    ]
    places = [words.index(mark) for mark in marks]
    assert places == sorted(places)


def test_every_fact_is_on_the_page(html: str, report: dict[str, Any]) -> None:
    words = Page(html).words
    for artifact in report["artifacts"]:
        assert artifact["target"] in words
        for island in (artifact["audit"] or {}).get("fp32_islands", []):
            assert island in words
        for fact in (artifact["sha256"], artifact["path"], artifact["reason"]):
            assert fact is None or fact in words
    for digest in (report["model"]["weights_sha256"], report["calibration"]["sha256"], report["validation"]["sha256"]):
        assert digest in words
    for stage in report["stages"]:
        assert stage["name"] in words
    for key, value in report["environment"].items():
        assert key in words
        assert ", ".join(value) in words if isinstance(value, list) else str(value) in words
    for note in report["notes"]:
        assert note in words
    assert "Loses 1.67 points of top-1 (95 % interval of the loss 0.15 to 3.71)" in words
    assert "exact" in words  # the SQNR of an artifact equal bit for bit
    assert "corrupt_0012.png" in words


def test_matrix_is_symmetric_and_has_the_reference(html: str) -> None:
    table = re.findall(r'<table class="matrix">.*?</table>', html, flags=re.DOTALL)[0]
    rows = [re.findall(r'<td class="(\w+)">([^<]*)</td>', row) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]
    cells = [[text for _, text in row] for row in rows if row]
    assert len(cells) == 9  # eight artifacts that ran, and the reference
    assert cells == [list(column) for column in zip(*cells, strict=True)]
    assert cells[0][1] == "100"
    assert cells[0][8] == "97.2"
    heats = {text: kind for row in rows for kind, text in row}
    assert heats["100"] == "h0"
    assert heats["96.7"] > heats["99.7"]


HOSTILE = [
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{ 7 * 7 }}{% raw %}",
    "</style><svg onload=alert(1)>",
    "javascript:alert(1)",
    "\u202egnp.exe",
    "--><!--",
    "&lt;b&gt;",
]  # fmt: skip


def every_text(node: Any, name: str) -> Any:
    """`node` with every free text replaced by `name`."""
    fixed = {"status", "precision", "evidence", "verdict", "sha256", "weights_sha256", "target", "a", "b", "head"}
    if isinstance(node, dict):
        return {k: v if k in fixed else every_text(v, name) for k, v in node.items()}
    if isinstance(node, list):
        return [every_text(v, name) for v in node]
    return name if isinstance(node, str) else node


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(report: dict[str, Any], name: str) -> None:
    hostile = every_text(report, name)
    hostile["environment"][name] = name
    hostile["model"]["preprocess"] = {name: name}
    rename = {a["target"]: f"{a['target']}{name}" for a in report["artifacts"]}
    for artifact in hostile["artifacts"]:
        artifact["target"] = rename[artifact["target"]]
    for pair in hostile["agreement"]:
        for side in ("a", "b"):
            target, precision = pair[side].rsplit("/", 1)
            pair[side] = f"{rename[target]}/{precision}"
    html = render(hostile)
    page = Page(html)
    assert_inert(page)
    assert "\u202e" not in html
    assert name.replace("\u202e", "") in page.words


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_beside_other_reports(report: dict[str, Any], name: str) -> None:
    report["model"]["name"] = report["calibration"]["recipe"] = name
    report["artifacts"][0]["target"] += name
    for artifact in report["artifacts"]:
        artifact["reasons"] = [name]
    report["agreement"] = []
    given = [Given(name=f"{name}{side}", report=r) for side, r in (("a", load(EXAMPLE)), ("b", report), ("c", report))]
    for html in (compare_html.render(compare(*given[:2])), overview.render(overview.overview(given))):
        page = Page(html)
        assert_inert(page)
        assert "\u202e" not in html
        assert name.replace("\u202e", "") in page.words


def test_parts_that_are_missing(report: dict[str, Any]) -> None:
    bare = {**report, "calibration": None, "validation": None, "agreement": [], "stages": [], "notes": []}
    bare["reference"] = {**report["reference"], "trained_on": None}
    bare["artifacts"] = [a for a in report["artifacts"] if a["status"] != "ok"]
    words = Page(render(bare)).words
    assert "Nothing here should ship" in words
    assert "Agreement between runtimes" not in words
    empty = Page(render({**bare, "artifacts": []})).words
    assert "No artifact can be shipped." in empty


def test_caution_is_not_called_ship(report: dict[str, Any]) -> None:
    report["artifacts"] = [report["artifacts"][7]]
    report["agreement"] = []
    assert "Closest to shipping: onnxruntime int8" in Page(render(report)).words


def test_long_lists_are_cut_with_a_word(report: dict[str, Any]) -> None:
    report["artifacts"][1]["audit"]["fp32_islands"] = [f"module.{i}" for i in range(5000)]
    report["calibration"]["skipped"] = [{"name": f"{i}.jpg", "reason": "truncated"} for i in range(5000)]
    html = render(report)
    assert len(html.encode()) < 1_500_000
    words = Page(html).words
    assert "and 4800 more in report.json" in words
    assert "5000 could not be read" in words


def test_samples_do_not_swell_the_page(report: dict[str, Any], html: str) -> None:
    for artifact in report["artifacts"]:
        if artifact["latency"]:
            artifact["latency"]["samples_ms"] *= 1000
    assert len(render(report)) < len(html) + 1000


def test_an_invalid_report_is_refused(report: dict[str, Any]) -> None:
    report["reference"]["top1"] = 98.6
    with pytest.raises(UsageError, match=r"reference\.top1"):
        render(report)


def test_provenance_stands_beside_the_reference(html: str) -> None:
    words = Page(html).words
    assert "Trained on scikit-learn load_digits, training split." in words
    for fact in (
        "Top-1 here 98.6 % (95 % interval 96.8 to 99.4 %), 360 images",
        "Top-1 when trained 98.6 % (95 % interval 96.8 to 99.4 %), 360 images",
        "Started from scratch",
        "Wall time 78.3 s",
        "Images per second 412",
        "Training images 1,077",
        "Batch size 32",
        "timm 1.0.31",
    ):
        assert fact in re.sub(r"\xa0", " ", words)
    assert "than its provenance says" not in words


def test_another_validation_set_is_noted(report: dict[str, Any]) -> None:
    report["reference"]["top1"] = 0.8
    assert "Top-1 here is less than its provenance says" in Page(render(report)).words


def test_a_digest_is_short_and_whole_on_demand(html: str, report: dict[str, Any]) -> None:
    digest = report["model"]["weights_sha256"]
    assert f"<summary><code>{digest[:8]}\u2026{digest[-4:]}</code></summary><code>{digest}</code>" in html


def test_more_figures_of_an_artifact(html: str) -> None:
    words = Page(html).words.replace("\xa0", " ")
    assert "Against PT2E 57.6 dB, largest difference 0.014" in words
    assert "Against PT2E equal bit for bit" in words
    assert "Cosine to fp32 mean 0.9983" in words
