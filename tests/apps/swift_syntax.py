"""Swift sources as syntax trees, by tree-sitter's grammar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
IOS = ROOT / "apps" / "ios"
RUNNER = ROOT / "targets" / "coreml" / "runner"


def sources(*folders: str | Path) -> list[Path]:
    """Every Swift file of the app's packages and of the runner, or of some folders, without what builds left."""
    found = [path for folder in folders or (IOS, RUNNER) for path in (IOS / folder).rglob("*.swift")]
    return sorted(path for path in found if ".build" not in path.parts)


def parse(source: bytes) -> Any:
    tree_sitter = pytest.importorskip("tree_sitter", reason="tree-sitter is not installed")
    swift = pytest.importorskip("tree_sitter_swift", reason="tree-sitter-swift is not installed")
    return tree_sitter.Parser(tree_sitter.Language(swift.language())).parse(source).root_node


def nodes(root: Any) -> Iterator[Any]:
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        pending += node.children


def mistakes(root: Any) -> list[str]:
    """Where the grammar does not fit, and what was left out."""
    wrong = [node for node in nodes(root) if node.is_error or node.is_missing]
    return [f"line {node.start_point[0] + 1}: {node.text.decode()[:60]!r}" for node in wrong]


def forced(root: Any) -> list[str]:
    """Force-unwraps, `try!`, `as!` and implicitly unwrapped types: what may end the app instead of throwing."""
    ends = {"postfix_expression", "type_annotation"}
    found = []
    for node in nodes(root):
        last = node.children[-1] if node.children else None
        if (
            (node.type in ends and last is not None and last.text == b"!")
            or (node.type == "try_operator" and node.text.endswith(b"!"))
            or node.type == "as!"
        ):
            found.append(f"line {node.start_point[0] + 1}: {node.text.decode()[:60]!r}")
    return found


def identifiers(paths: list[Path]) -> dict[str, Path]:
    """Every name that the sources use, with a file that does."""
    named = {"simple_identifier", "type_identifier", "identifier"}
    return {
        node.text.decode(): path for path in paths for node in nodes(parse(path.read_bytes())) if node.type in named
    }
