"""SVG and HTML elements as text, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any


def element(tag: str, content: str = "", /, **attributes: Any) -> str:
    """`content` is markup; attributes are text or numbers (None: left out); `class_` is class, `_` is `-`."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(number(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{written}>{content}</{tag}>"


def number(value: Any) -> str:
    """Short: one decimal of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def text(x: float, y: float, words: str, class_: str = "", **attributes: Any) -> str:
    """`x` and `y` are of the base line; text-anchor comes from the class."""
    return element("text", escape(words), x=float(x), y=float(y), class_=class_ or None, **attributes)


def rect(
    x: float, y: float, width: float, height: float, class_: str, title: str = "", **attributes: Any
) -> str:
    """A box; `title` is shown when the pointer rests on it."""
    told = element("title", escape(title)) if title else ""
    return element(
        "rect",
        told,
        x=float(x),
        y=float(y),
        width=float(width),
        height=float(height),
        class_=class_,
        **attributes,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def bars(runs: Iterable[tuple[float, float]], left: float, middle: float) -> str:
    """Path data of horizontal strokes (x, length) on the line y = `middle`, shifted by `left`."""
    return "".join(f"M{number(left + x)} {number(middle)}h{number(length)}" for x, length in runs)


def points(places: Iterable[tuple[float, float]]) -> str:
    """Path data of dots: strokes without length, which round caps make round."""
    return "".join(f"M{number(x)} {number(y)}h0" for x, y in places)


def group(parts: Iterable[str], class_: str, **attributes: Any) -> str:
    return element("g", "".join(parts), class_=class_, **attributes)
