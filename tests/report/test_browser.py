"""report.html in a real headless Chromium, at phone and desktop width, light, dark and print, with and without script.

Chromium is driven over its DevTools protocol through `--remote-debugging-pipe` (NUL-separated JSON on file descriptors
3 and 4), which needs no port and no package. `CSPEDGE_SCREENSHOTS=DIR` keeps a picture of each view.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cspedge.report import compare_html, load, render
from cspedge.report.compare import compare
from cspedge.report.given import read
from cspedge.types import Head

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (Debian: apt install chromium)")

EXAMPLE = Path(__file__).with_name("example_report.json")
VIEWS = [(320, "light"), (390, "light"), (390, "dark"), (768, "light"), (1280, "light"), (1280, "dark")]
# The child moves the two pipe ends to descriptors 3 and 4 and becomes Chromium.
SHIM = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One headless Chromium with one tab; every event it sends is kept in `events`."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        flags += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", SHIM, str(their_in), str(their_out), CHROMIUM, *flags],
            pass_fds=(their_in, their_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        self.events: list[dict[str, Any]] = []
        self._buffer, self._next, self._session = b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._session = ""
        self.call("Browser.close")
        self._process.wait(timeout=30)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._next:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "chromium did not answer in 60 s"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "chromium ended"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(self, page: Path, *, width: int, scheme: str = "light", media: str = "", script: bool = True) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=2, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def requested(self) -> list[str]:
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[str]:
        """What Chromium logged: refusals by the content security policy, parse errors."""
        entries = [event["params"]["entry"]["text"] for event in self.events if event["method"] == "Log.entryAdded"]
        return entries + [str(e["params"]) for e in self.events if e["method"] == "Runtime.exceptionThrown"]

    def screenshot(self, name: str) -> None:
        folder = os.environ.get("CSPEDGE_SCREENSHOTS")
        if folder:
            picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(picture["data"]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    tab = Browser(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(load(EXAMPLE)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names that are too long, or that would run or fetch something were they not escaped."""
    report = load(EXAMPLE)
    attack = '<script>document.title="owned"</script><img src="https://example.invalid/x.png" onerror="alert(1)">'
    report["model"]["name"] = attack + "\u202etxt.exe" + "x" * 300
    report["notes"].append(attack + "W" * 400)
    report["environment"]["cpu"] = "C" * 300
    for index, artifact in enumerate(report["artifacts"][:2]):
        artifact["target"] = "executorch" + attack + "-very-long-name-without-a-break" * 5
        artifact["reasons"].append("R" * 300)
        artifact["audit"]["fp32_islands"] = [attack, "module." * 60]
        artifact["path"] = f"{index}" + "p" * 300
    report["artifacts"][8]["reason"] = attack + "E" * 300
    report["agreement"] = []
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_text(render(report), encoding="utf-8")
    return path


# Boxes that stick out of the window sideways, unless they scroll inside a box of their own.
OVERFLOW = """
(() => {
  const wide = document.documentElement.clientWidth, out = [];
  if (document.scrollingElement.scrollWidth > wide) out.push('page ' + document.scrollingElement.scrollWidth);
  for (const e of document.querySelectorAll('body *')) {
    if (e.closest('.scroll') && !e.matches('.scroll') || e.closest('defs, title, desc, thead')) continue;
    const r = e.getBoundingClientRect();
    if (r.width && (r.right > wide + 0.5 || r.left < -0.5)) out.push(e.tagName + '.' + e.className + ' ' + r.right);
  }
  return out;
})()
"""
TEXTS = """
const texts = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let n = walk.nextNode(); n; n = walk.nextNode()) {
  const e = n.parentElement;
  if (!n.data.trim() || e.closest('title, desc, style') || !e.checkVisibility({contentVisibilityAuto: true})) continue;
  texts.push([n.data.trim(), e]);
}
"""
SMALL = (
    """(() => {"""
    + TEXTS
    + """
  return texts.map(([t, e]) => {
    const scale = e.getScreenCTM && e.ownerSVGElement ? e.getScreenCTM().a : 1;
    return [t, parseFloat(getComputedStyle(e).fontSize) * scale];
  }).filter(([t, size]) => size < 10);
})()"""
)
CONTRAST = (
    """(() => {"""
    + TEXTS
    + r"""
  const parse = c => {
    const v = c.match(/-?[\d.]+(e-?\d+)?/g).map(Number), s = c.startsWith('color(') ? 1 : 255;
    return [v[0] / s, v[1] / s, v[2] / s, v.length > 3 ? v[3] : 1];
  };
  const lum = c => {
    const [r, g, b] = c.slice(0, 3).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const bad = [];
  for (const [t, e] of texts) {
    const style = getComputedStyle(e), fore = parse(e.ownerSVGElement ? style.fill : style.color);
    let b = e, back = [1, 1, 1, 0];
    for (; b && back[3] === 0; b = b.parentElement) back = parse(getComputedStyle(b).backgroundColor);
    const [hi, lo] = [lum(fore), lum(back)].sort((x, y) => y - x);
    if ((hi + 0.05) / (lo + 0.05) < 4.5) bad.push([t, (hi + 0.05) / (lo + 0.05)]);
  }
  return bad;
})()"""
)
# A name squeezed to one letter per line makes its row tall.
TALLEST_ROW = """
Math.max(0, ...[...document.querySelectorAll('.matrix tbody tr, .levels tbody tr')].map(r => r.offsetHeight))
"""
PLOT_CLASHES = """
(() => {
  const bad = [];
  for (const svg of document.querySelectorAll('svg.plot')) {
    const frame = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
    boxes.forEach(([t, r], i) => {
      if (r.left < frame.left - 1 || r.right > frame.right + 1 || r.top < frame.top - 1 || r.bottom > frame.bottom + 1)
        bad.push('outside: ' + t);
      for (const [u, s] of boxes.slice(i + 1))
        if (r.left < s.right - 1 && s.left < r.right - 1 && r.top < s.bottom - 3 && s.top < r.bottom - 3)
          bad.push(t + ' over ' + u);
    });
  }
  return bad;
})()
"""


def look(browser: Browser, page: Path, width: int, scheme: str, name: str) -> None:
    """Opens a page and finds nothing wrong with it: no overflow, nothing over something else, nothing fetched."""
    browser.open(page, width=width, scheme=scheme)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate(OVERFLOW) == []
    assert browser.evaluate(PLOT_CLASHES) == []
    assert browser.evaluate(CONTRAST) == []
    assert browser.evaluate(TALLEST_ROW) < 48
    if width >= 390:
        assert browser.evaluate(SMALL) == []
    assert [url for url in browser.requested() if url != page.as_uri() and not url.startswith("data:")] == []
    assert browser.complaints() == []
    browser.screenshot(f"{name}-{width}-{scheme}")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_fits_reads_and_fetches_nothing(browser: Browser, page: Path, width: int, scheme: str) -> None:
    look(browser, page, width, scheme, "report")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
@pytest.mark.parametrize("head", list(Head))
def test_a_real_run_fits_too(
    browser: Browser, real_run: Callable[[Head], Path], head: Head, width: int, scheme: str
) -> None:
    look(browser, real_run(head) / "report.html", width, scheme, head)


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_what_changed_and_the_contact_sheet_fit(
    browser: Browser, changed: Callable[[bool], dict[str, Any]], tmp_path: Path, width: int, scheme: str
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(changed(True)), encoding="utf-8")
    look(browser, page, width, scheme, "changed")
    assert browser.evaluate("[...document.images].every(e => e.complete && e.naturalWidth === 64)")
    assert browser.evaluate("document.images.length") > 5


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_a_comparison_of_two_real_runs_fits(
    browser: Browser, two_runs: tuple[Path, Path], tmp_path: Path, width: int, scheme: str
) -> None:
    page = tmp_path / "comparison.html"
    page.write_text(compare_html.render(compare(*(read(str(run)) for run in two_runs))), encoding="utf-8")
    look(browser, page, width, scheme, "comparison")


@pytest.mark.parametrize("head", list(Head))
def test_a_real_run_prints_and_needs_no_script(browser: Browser, real_run: Callable[[Head], Path], head: Head) -> None:
    page = real_run(head) / "report.html"
    assert layout(browser, page, script=True) == layout(browser, page, script=False)
    look_at_print(browser, page, head)


def layout(browser: Browser, page: Path, *, script: bool) -> tuple[float, float, list[str]]:
    """Width, height and every text that a page shows."""
    browser.open(page, width=390, script=script)
    size = browser.call("Page.getLayoutMetrics")["cssContentSize"]
    snapshot = browser.call("DOMSnapshot.captureSnapshot", computedStyles=[])
    shown = [snapshot["strings"][i] for i in snapshot["documents"][0]["layout"]["text"] if i >= 0]
    return size["width"], size["height"], shown


def look_at_print(browser: Browser, page: Path, name: str) -> None:
    browser.open(page, width=794, scheme="dark", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("[...document.querySelectorAll('.island li')].every(e => e.checkVisibility())")
    assert browser.evaluate(CONTRAST) == []
    browser.screenshot(f"{name}-print")


def test_light_and_dark_differ_in_page_and_plots(browser: Browser, page: Path) -> None:
    colours = []
    for scheme in ("light", "dark"):
        browser.open(page, width=390, scheme=scheme)
        fill = "getComputedStyle(document.querySelector('svg.plot text')).fill"
        colours.append(browser.evaluate(f"[getComputedStyle(document.body).backgroundColor, {fill}]"))
    assert colours[0][0] != colours[1][0]
    assert colours[0][1] != colours[1][1]


def test_everything_is_there_without_script(browser: Browser, page: Path) -> None:
    bare = layout(browser, page, script=False)
    assert bare == layout(browser, page, script=True)
    assert "What really runs in int8" in bare[2]


def test_print_is_light_and_opens_what_is_folded(browser: Browser, page: Path) -> None:
    look_at_print(browser, page, "report")
    pdf = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pdf.startswith(b"%PDF")


@pytest.mark.parametrize("width", [390, 1280])
def test_hostile_names_neither_run_nor_overflow(browser: Browser, hostile_page: Path, width: int) -> None:
    browser.open(hostile_page, width=width)
    assert browser.evaluate("document.title").startswith("<script>")
    assert browser.evaluate("document.querySelectorAll('script, img, iframe, object, embed').length") == 0
    assert set(browser.requested()) <= {hostile_page.as_uri(), "data:,"}
    assert browser.complaints() == []
    assert browser.evaluate(OVERFLOW) == []
    assert browser.evaluate(PLOT_CLASHES) == []
    browser.screenshot(f"report-hostile-{width}")
