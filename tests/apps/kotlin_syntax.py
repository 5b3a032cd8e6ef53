"""Kotlin's real grammar over the Android sources and Gradle scripts: what no compiler here can take whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def nodes(source: bytes) -> Iterator[Any]:
    """Every node of the syntax tree, parents first."""
    language = pytest.importorskip("tree_sitter_kotlin", reason="tree-sitter-kotlin is not installed")
    from tree_sitter import Language, Parser

    waiting = [Parser(Language(language.language())).parse(source).root_node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def problems(path: Path) -> list[str]:
    """What the grammar does not take, and every `!!`: `name:line: what`."""
    found = []
    for node in nodes(path.read_bytes()):
        what = "does not parse" if node.is_error else "lacks something" if node.is_missing else ""
        if node.type == "!!":
            what = "asserts with !!"
        if what:
            found.append(f"{path.name}:{node.start_point[0] + 1}: {what}")
    return found


def calls(path: Path, name: str) -> list[str]:
    """The only text argument of every call `name("...")` in a Gradle script."""
    found = []
    for node in nodes(path.read_bytes()):
        if node.type == "call_expression" and node.children[0].text == name.encode():
            texts = [part.text.decode() for part in nodes(node.text) if part.type == "string_content"]
            found += texts[:1]
    return found


def chains(path: Path, start: str) -> set[str]:
    """Every `start.a.b.c`, whole and without `start`."""
    found = set()
    for node in nodes(path.read_bytes()):
        text = node.text.decode()
        if node.type == "navigation_expression" and text.startswith(f"{start}."):
            parent = node.parent
            if parent is None or parent.type != "navigation_expression":
                found.add(text.removeprefix(f"{start}."))
    return found
