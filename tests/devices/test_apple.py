"""`mac://` and `ios://UDID`: what is refused before any work, and the commands that run them on a Mac."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

from cspedge.cli.app import app, call
from cspedge.devices import emit, uri

PHONE = "ios://00008110-0012345A3E61801E"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--device", "mac://"], 4, "device 'mac://' needs a Mac with Xcode, which this is not; --emit DIR writes a"),
        (["--device", PHONE], 4, f"device '{PHONE}' needs a Mac with Xcode"),
        (
            ["--device", "mac://", "--target", "openvino"],
            2,
            "runs Core ML artifacts alone, and openvino would be run too",
        ),
        (["--device", "mac://", "--head", "features"], 2, "--head features is not for device 'mac://'"),
        (["--emit", "DIR"], 2, "--emit is for --device mac://[?units=UNITS] and --device ios://UDID[?units=UNITS]"),
        (["--device", "local-process://", "--emit", "DIR"], 2, "--emit is for --device mac://"),
        (["--emit-images", "5"], 2, "--emit-images says how many images --emit DIR writes; give DIR"),
        (["--device", "mac://", "--emit", "file"], 2, "--emit 'file' is there already; give a folder that is new or"),
        (["--device", PHONE, "--emit", "DIR", "--add", "x"], 2, "--add takes the results of a device that ran by hand"),
        (["--add", "none/results.json"], 3, "there is no 'none/results.json'; give the results.json that the runner"),
    ],
)
def test_what_is_refused_before_any_work(
    args: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if code == 4 and sys.platform == "darwin":
        pytest.skip("this is a Mac")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert call(app, ["bench", "--target", "coreml", *args]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_commands_are_argument_lists() -> None:
    (run,) = emit.commands(uri.parse("mac://"), "", "")
    assert run[:3] == ["xcrun", "swift", "run"]
    assert run[-3:] == ["cspedge-coreml-runner", emit.JOB, emit.RESULTS]
    test, copy = emit.commands(uri.parse(PHONE), "ABCDE12345", "com.mine.runner")
    assert test[:3] == ["xcrun", "xcodebuild", "test"]
    assert test[test.index("-destination") + 1] == f"platform=iOS,id={PHONE.removeprefix('ios://')}"
    assert test[-2:] == ["DEVELOPMENT_TEAM=ABCDE12345", "CSPEDGE_RUNNER_ID=com.mine.runner"]
    assert copy[:5] == ["xcrun", "devicectl", "device", "copy", "from"]
    assert copy[copy.index("--domain-identifier") + 1] == "com.mine.runner"


@pytest.mark.parametrize("total", [1, 7, 20])
@pytest.mark.parametrize("wanted", [None, 1, 6, 20, 50])
def test_images_are_drawn_evenly(total: int, wanted: int | None) -> None:
    found = emit.chosen(total, wanted)
    assert len(found) == min(total, wanted or total)
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] < total
    steps = {after - before for before, after in pairwise(found)}
    assert len(steps) <= 2
