"""Numbers and names as the report says them: fractions as percent, drops as points, bytes as MB."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

OVER_BUDGET = "is over the budget"  # in a note on an artifact that misses a given budget
VERDICT_WORDS = {"ship": "ship", "caution": "caution", "do-not-ship": "do not ship"}
EVIDENCE_WORDS = {
    "measured": "measured here",
    "emulated": "emulated here",
    "reference-executor": "reference executor",
    "not-run": "not run",
}


def percent(fraction: float, digits: int = 1) -> str:
    """0.9833 -> '98.3 %', 1 -> '100 %'. Never rounds up to all or down to none: 0.9999 -> '>99.9 %'."""
    if fraction in (0, 1):
        return f"{100 * fraction:.0f} %"
    text = f"{100 * fraction:.{digits}f}"
    step = 10.0**-digits
    if text == f"{100:.{digits}f}":
        return f">{100 - step:.{digits}f} %"
    if float(text) == 0:
        return f"<{step:.{digits}f} %"
    return f"{text} %"


def points(fraction: float, digits: int = 2) -> str:
    """A difference of fractions in percentage points, signed with a real minus: -0.0028 -> '\u22120.28'."""
    value = round(100 * fraction, digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{value:.{digits}f}".replace("-", "\u2212")


def megabytes(count: int) -> str:
    """Decimal units, as app stores count: 612_345 -> '612 kB', 2_400_000 -> '2.40 MB'."""
    if count < 1_000:
        return f"{count} B"
    if count < 999_500:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.2f} MB" if count < 99_995_000 else f"{count / 1e6:,.0f} MB"


def instructions(count: int) -> str:
    """Three significant digits: 13_812_345 -> '13.8 M', 143_400_000 -> '143 M'."""
    return f"{milliseconds(count / 1e6)} M"


def milliseconds(value: float) -> str:
    """Three significant digits, no unit: 0.4211 -> '0.421', 12.34 -> '12.3', 140.2 -> '140'."""
    if value < 0.9995:
        return f"{value:.3f}"
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def seconds(value: float) -> str:
    """0.04 -> '0.04 s', 24.31 -> '24.3 s', 312 -> '5 min 12 s'."""
    if value >= 119.5:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest} s"
    return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"


def times(ratio: float) -> str:
    """A ratio: 1.4142 -> '1.41', 12.5 -> '12.5'."""
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.1f}"


def cosine(value: float) -> str:
    """A cosine similarity: 0.97054 -> '0.9705', 1 -> '1'. Never rounds up to 1: 0.99999 -> '>0.9999'."""
    if value == 1:
        return "1"
    text = f"{value:.4f}"
    return ">0.9999" if text == "1.0000" else text.replace("-", "\u2212")


def decibels(value: float | None) -> str:
    """An SQNR without its unit: 29.395 -> '29.4', 120.2 -> '120', None (equal bit for bit) -> 'exact'."""
    if value is None:
        return "exact"
    return (f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}").replace("-", "\u2212")


def brief(value: float) -> str:
    """A difference in two digits or so: 1.2, 0.014, 3e\u22125."""
    if value == 0:
        return "0"
    if value < 0.01:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e\u2212{abs(int(exponent))}"
    return f"{value:.2g}" if value < 0.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def class_name(names: Sequence[str], index: int) -> str:
    """The class's own name, or its number where the model has none."""
    return names[index] if index < len(names) else f"class {index}"


def chance(p: float) -> str:
    """A p-value: 0.0312 -> '0.031', 3e-9 -> '<0.001', 1 -> '1'."""
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def plain(text: str) -> str:
    """`text` without control and format characters (bidi overrides, zero-width, NUL), for display only."""
    return "".join(" " if c in "\n\r\t" else c for c in text if unicodedata.category(c) not in _HIDDEN or c in "\n\r\t")


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the middle cut out: both ends of a name tell it apart."""
    text = plain(text)
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}\u2026{text[len(text) - (limit - 1 - head) :]}"


_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
