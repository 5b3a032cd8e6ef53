"""Reports that are given by path: a report.json or the folder that `--out` named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cspedge.errors import InputError, UsageError

FILE = "report.json"
_STORE_FOLDERS = ("objects", "refs")


@dataclass(frozen=True, kw_only=True)
class Given:
    """A report and the words that name it: its path as the user wrote it."""

    name: str
    report: dict[str, Any]


def is_report(text: str) -> bool:
    """Whether one argument means a report and not a model: a .json file, or a folder that is there.

    A folder that merely bears a model's name (`lcnet_050`, from some other tool) is not taken for a report.
    """
    path = Path(text).expanduser()
    is_path = "/" in text or text.startswith((".", "~"))
    return text.endswith(".json") or (path.is_dir() and (is_path or (path / FILE).is_file()))


def read(text: str) -> Given:
    """The report at a path. Raises InputError where there is none, or another schema, NaN or damage in it."""
    from cspedge.report.schema import load

    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / FILE).is_file():
            raise InputError(f"no {FILE} in {text!r}: {_what_it_is(path)}")
        path = path / FILE
    elif not path.exists():
        raise InputError(f"no report at {text!r}: give a {FILE} or the folder that --out of a run named")
    try:
        return Given(name=text, report=load(path))
    except UsageError as error:  # of a file that another run or program wrote, so not a mistake in the command
        raise InputError(str(error)) from error


def _what_it_is(path: Path) -> str:
    if all((path / name).is_dir() for name in _STORE_FOLDERS):
        return "it is a workspace; give the folder that --out named, or write its report with `cspedge report`"
    return f"give a {FILE} or the folder that --out of a run named"
