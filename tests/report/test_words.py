"""Numbers as the report says them."""

from __future__ import annotations

import pytest

from cspedge.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.98333, "98.3 %"), (1, "100 %"), (1.0, "100 %"), (0.0, "0 %"), (0.9999, ">99.9 %"), (0.0001, "<0.1 %")],
)
def test_percent(value: float, text: str) -> None:
    assert words.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0028, "0.28"), (-0.0028, "\u22120.28"), (0.0, "0.00"), (-0.0, "0.00"), (-0.00001, "0.00")]
)
def test_points(value: float, text: str) -> None:
    assert words.points(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (999_499, "999 kB"), (999_500, "1.00 MB"), (123_456_789, "123 MB")],
)
def test_megabytes(value: int, text: str) -> None:
    assert words.megabytes(value) == text


@pytest.mark.parametrize(("value", "text"), [(812_345, "0.812 M"), (13_812_345, "13.8 M"), (143_400_000, "143 M")])
def test_instructions(value: int, text: str) -> None:
    assert words.instructions(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.4211, "0.421"), (0.99951, "1.00"), (9.996, "10.0"), (12.34, "12.3"), (99.96, "100")]
)
def test_milliseconds(value: float, text: str) -> None:
    assert words.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.04 s"), (24.31, "24.3 s"), (119.6, "2 min 0 s"), (312, "5 min 12 s")]
)
def test_seconds(value: float, text: str) -> None:
    assert words.seconds(value) == text


def test_plain_drops_what_cannot_be_seen() -> None:
    assert words.plain("a\u202eb\x00c\u200bd\ne") == "abcd e"
    assert words.plain("\u6570\u5b57 caf\u00e9 \U0001f600") == "\u6570\u5b57 caf\u00e9 \U0001f600"


def test_shorten_keeps_both_ends() -> None:
    assert words.shorten("abcdefghij", 10) == "abcdefghij"
    short = words.shorten("executorch-with-a-long-name", 12)
    assert len(short) == 12
    assert short.startswith("executo")
    assert short.endswith("name")
