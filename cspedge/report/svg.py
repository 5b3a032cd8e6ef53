"""From matplotlib's SVG document to an inline element of the page.

What matplotlib wrote is rebuilt element by element from an allow-list: no metadata, no style sheet, no namespace URL,
no comment; colours become CSS variables, ids take a prefix, text stays text in the page's font.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLOT_FONT = "'DejaVu Sans'"  # the first name in matplotlib's default family
_ELEMENTS = frozenset({"svg", "g", "path", "text", "tspan", "defs", "clipPath", "rect", "use"})
_ATTRIBUTES = frozenset({"id", "d", "style", "transform", "clip-path", "x", "y", "width", "height", "href"})


def document(figure: Figure) -> str:
    """matplotlib's SVG of a figure, without a date."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def inline(
    document: str,
    *,
    prefix: str,
    view: tuple[float, float],
    title: str,
    description: str,
    colours: Mapping[str, str],
) -> str:
    """An `<svg role="img">` to stand in an HTML page.

    prefix: put before every id, unique among the page's plots; view: width and height in user units;
    colours: what to put in place of which sentinel colour (`#rrggbb`, lower case).
    """
    root = ElementTree.fromstring(document)
    _strip(root, f"{prefix}-", colours)
    root.attrib.clear()
    root.attrib.update(
        {
            "class": "plot",
            "viewBox": f"0 0 {view[0]:g} {view[1]:g}",
            "role": "img",
            "aria-labelledby": f"{prefix}-title {prefix}-desc",
        }
    )
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{prefix}-{tag}"})
        element.text = text
        root.insert(position, element)
    return ElementTree.tostring(root, encoding="unicode")


def _strip(element: ElementTree.Element, prefix: str, colours: Mapping[str, str]) -> None:
    """Leaves allowed elements and attributes, without namespaces, colours replaced, ids prefixed."""
    element.tag = _local(element.tag)
    attributes = {_local(key): value for key, value in element.attrib.items()}
    element.attrib.clear()
    for key, value in attributes.items():
        if key in _ATTRIBUTES:
            element.set(key, _attribute(key, value, prefix, colours))
    for child in list(element):
        if _local(child.tag) in _ELEMENTS:
            _strip(child, prefix, colours)
        else:
            element.remove(child)
    if element.tag not in {"text", "tspan"}:
        element.text = None
    element.tail = None
    if element.tag == "defs" and len(element) == 0:
        element.tag = "g"


def _attribute(key: str, value: str, prefix: str, colours: Mapping[str, str]) -> str:
    if key == "id":
        return prefix + value
    if key == "href":
        return "#" + prefix + value.removeprefix("#")
    if key == "clip-path":
        return value.replace("url(#", f"url(#{prefix}")
    if key == "style":
        declarations = (part.strip() for part in value.split(";"))
        return "; ".join(_declaration(part, colours) for part in declarations if part)
    return value


def _declaration(text: str, colours: Mapping[str, str]) -> str:
    """One CSS declaration with the page's colours and its font in place of matplotlib's."""
    for sentinel, variable in colours.items():
        text = text.replace(sentinel, variable)
    if _PLOT_FONT in text:  # "font: 11px 'DejaVu Sans', ..." or "font-family: 'DejaVu Sans', ..."
        text = text.split(_PLOT_FONT, 1)[0] + "var(--font)"
    return text


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]
