"""The native runner's JSON line: what is taken, and results that belong to something else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cspedge.devices.line import Asked, parse
from cspedge.errors import TargetError

A, B, C = "a" * 64, "b" * 64, "c" * 64
ASKED = Asked(label="executorch/int8", sha256=A, threads=1, images=2, tensors_sha256=B, rounds=3, outputs=True)
LINE: dict[str, Any] = {
    "artifact": "executorch/int8",
    "sha256": A,
    "runtime": {"name": "executorch", "version": "1.5.1"},
    "delegates": ["XnnpackBackend"],
    "threads": 1,
    "images": 2,
    "tensors_sha256": B,
    "outputs_sha256": C,
    "load_ms": 4.5,
    "first_ms": 3,
    "samples_ms": [1.5, 1.25, 1.75],
    "peak_rss_bytes": 20_000_000,
}


def test_a_line_that_answers_what_was_asked() -> None:
    found = parse(json.dumps(LINE) + "\n", ASKED, "ssh://board")
    assert found.samples_ms == (1.5, 1.25, 1.75)
    assert (found.runtime, found.version, found.delegates) == ("executorch", "1.5.1", ("XnnpackBackend",))
    assert (found.outputs_sha256, found.first_ms) == (C, 3.0)
    none = parse(json.dumps(LINE | {"outputs_sha256": None}), replace(ASKED, outputs=False), "ssh://board")
    assert none.outputs_sha256 is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": C}, f"its artifact's SHA-256 is '{C}', and '{A}' was asked for"),
        ({"artifact": "openvino/int8"}, "its artifact is 'openvino/int8', and 'executorch/int8' was asked for"),
        ({"tensors_sha256": A}, "its tensors' SHA-256 is"),
        ({"images": 3}, "its number of images is 3, and 2 was asked for"),
        ({"threads": 4}, "its number of threads is 4, and 1 was asked for"),
        ({"samples_ms": [1.0]}, "its number of samples is 1, and 3 was asked for"),
        ({"outputs_sha256": None}, "its presence of outputs is False, and True was asked for"),
        ({"samples_ms": [1.0, float("nan"), 1.0]}, "NaN is not JSON"),
        ({"samples_ms": [1.0, -1.0, 1.0]}, "samples_ms[1] is -1.0; expected a number from 0"),
        ({"load_ms": "fast"}, "load_ms is 'fast'; expected a finite number"),
        ({"surplus": 1}, "surplus"),
        ({"sha256": "../../etc"}, "expected a SHA-256"),
    ],
)
def test_results_of_something_else(change: dict[str, Any], words: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse(json.dumps(LINE | change), ASKED, "ssh://board")
    assert words in str(caught.value)
    assert "device 'ssh://board' gave results of executorch/int8 that cannot be used" in str(caught.value)


@pytest.mark.parametrize("text", ["", "Killed", "[]", '{"artifact": ', json.dumps(LINE) * 2])
def test_what_is_no_line(text: str) -> None:
    with pytest.raises(TargetError, match="that cannot be used"):
        parse(text, ASKED, "ssh://board")
