"""Small checks of JSON values, and the ways to combine them.

A check is a function of (value, JSON path): it returns nothing, or raises `UsageError` naming the path, what is there
and what is expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from cspedge.errors import UsageError

Check = Callable[[Any, str], None]


def wrong(where: str, what: str, allowed: str) -> UsageError:
    return UsageError(f"report.json: {where or 'the document'} {what}; expected {allowed}")


def text(value: Any, where: str) -> None:
    if not isinstance(value, str):
        raise wrong(where, f"is {show(value)}", "text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise wrong(where, f"is {value!r}, with half a surrogate pair", "text that UTF-8 can hold") from error


def name(value: Any, where: str) -> None:
    text(value, where)
    if not value.strip():
        raise wrong(where, "is empty", "text")


def sha256(value: Any, where: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise wrong(where, f"is {show(value)}", "a SHA-256 in 64 lower-case hex digits")


def jpeg(value: Any, where: str) -> None:
    """Nothing but a picture may stand in an `img` of the page."""
    if not isinstance(value, str) or not re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/]+={0,2}", value):
        raise wrong(where, f"is {show(value)}", "a JPEG as a data URI in base64")


def flag(value: Any, where: str) -> None:
    if not isinstance(value, bool):
        raise wrong(where, f"is {show(value)}", "true or false")


def number(low: float = -math.inf, high: float = math.inf) -> Check:
    """A finite number in [low, high]; JSON's true and false are not numbers."""

    def check(value: Any, where: str) -> None:
        # The bound refuses NaN and infinities, and integers too long for a float.
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 <= value <= 1e300:
            raise wrong(where, f"is {show(value)}", "a finite number")
        if not low <= value <= high:
            raise wrong(where, f"is {value}", f"a number from {low:g} to {high:g}")

    return check


def count(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise wrong(where, f"is {show(value)}", "a whole number from 0 to 2**63 - 1")


def one_of(words: type[StrEnum]) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in list(words):
            raise wrong(where, f"is {show(value)}", "one of " + ", ".join(words))

    return check


def constant(expected: Any) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) is not type(expected) or value != expected:
            raise wrong(where, f"is {show(value)}", repr(expected))

    return check


def or_null(inner: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def list_of(inner: Check, at_least: int = 0) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) < at_least:
            raise wrong(where, f"is {show(value)}", f"a list of {at_least} or more" if at_least else "a list")
        for index, item in enumerate(value):
            inner(item, f"{where}[{index}]")

    return check


def map_of(inner: Check) -> Check:
    """An object of any keys whose values all pass `inner`."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise wrong(where, f"is {show(value)}", "an object")
        for key, item in value.items():
            name(key, where)
            inner(item, join(where, key))

    return check


def interval(low: float, high: float) -> Check:
    bound = number(low, high)

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) != 2:
            raise wrong(where, f"is {show(value)}", "[low, high]")
        for index, item in enumerate(value):
            bound(item, f"{where}[{index}]")
        if value[0] > value[1]:
            raise wrong(where, f"is {value}", "[low, high] with low <= high")

    return check


def closed(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """A closed object: every required key, nothing outside required and optional."""
    known = {**required, **(optional or {})}

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise wrong(where, f"is {show(value)}", "an object")
        for key in value:
            if key not in known:
                raise wrong(join(where, str(key)), "is an unknown key", "one of " + ", ".join(sorted(known)))
        for key in required:
            if key not in value:
                raise wrong(join(where, key), "is missing", "a value")
        for key, item in value.items():
            known[key](item, join(where, key))

    return check


def opened(required: Mapping[str, Check]) -> Check:
    """An object whose required keys are checked and whose other keys hold any finite JSON."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise wrong(where, f"is {show(value)}", "an object")
        for key in required:
            if key not in value:
                raise wrong(join(where, key), "is missing", "a value")
        for key, item in value.items():
            text(key, where)
            required.get(key, any_json)(item, join(where, key))

    return check


def either(first: Check, second: Check, *, by: str) -> Check:
    """`first` for an object with the key `by`, `second` for any other value."""

    def check(value: Any, where: str) -> None:
        (first if isinstance(value, dict) and by in value else second)(value, where)

    return check


def any_json(value: Any, where: str) -> None:
    if isinstance(value, dict):
        opened({})(value, where)
    elif isinstance(value, list):
        list_of(any_json)(value, where)
    elif isinstance(value, str):
        text(value, where)
    elif value is not None and not isinstance(value, bool):
        number()(value, where)


def join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
