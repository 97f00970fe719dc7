"""The tables of the report, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from chaos.report import words
from chaos.report.neighbours import Neighbour
from chaos.report.summary import has_no_effect
from chaos.report.svg import element

Json = dict[str, Any]

_BAR_PX: Final = 70


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, class_: str = "") -> str:
    """`rows` hold text; a column whose cells all look like figures is set to the right."""
    body = [list(row) for row in rows]
    right = [bool(body) and all(_is_figure(row[place]) for row in body) for place in range(len(head))]
    classes = ["figure" if each else None for each in right]
    top = "".join(element("th", escape(name), class_=each) for name, each in zip(head, classes, strict=True))
    lines = [
        element(
            "tr", "".join(element("td", escape(cell), class_=c) for cell, c in zip(row, classes, strict=True))
        )
        for row in body
    ]
    return _table(element("tr", top), lines, class_)


def invariants(rows: list[Json]) -> str:
    """One card an invariant."""
    cards = []
    for row in rows:
        broken = words.several(row["violations"], "violation")
        told = {"valid": "held", "invalid": broken, "unjudged": "nothing to judge"}.get(
            row["verdict"], "unknown"
        )
        cards.append(
            element(
                "li",
                element("b", escape(row["name"]))
                + element("span", escape(row["promise"] or "found by a checker of its own"), class_="promise")
                + element("span", escape(told), class_="word"),
                class_=row["verdict"], data_invariant=row["name"],
            )
        )  # fmt: skip
    return element("ul", "".join(cards), class_="invariants")


def recovery(faults: list[Json], closeups: set[int]) -> str:
    """What each fault cost, in time."""
    head = (
        ("#", ""), ("fault", ""), ("target", ""), ("at", "figure"), ("lasted", "figure"), ("consequence", ""),
        ("detected", "figure"), ("elected", "figure"), ("first write", "figure"), ("full rate", "figure"),
        ("no write for", "figure"), ("", ""),
    )  # fmt: skip
    longest = max((fault["figures"]["unavailable_ms"] or 0 for fault in faults), default=0) or 1
    lines = [
        _recovery_line(number, fault, number in closeups, longest) for number, fault in enumerate(faults, 1)
    ]
    return _table(_head(head), lines, "faults")


def _recovery_line(number: int, fault: Json, has_closeup: bool, longest_ms: float) -> str:
    figures = fault["figures"]
    idle = has_no_effect(fault)
    told = element("a", str(number), href=f"#fault-{number}") if has_closeup else str(number)
    cells = [
        element("td", told, class_="number"),
        element("td", escape(fault["name"])),
        element("td", escape(str(fault.get("target") or "–"))),
        *(_figure(cell) for cell in (words.seconds(fault["at_s"]), _lasted(fault))),
        element("td", escape("no effect" if idle else words.effect(fault))),
        *(_figure(words.ms(figures[name])) for name in ("detect_ms", "elect_ms", "first_write_ms")),
        _figure("kept" if figures["full_rate_ms"] == 0 else words.ms(figures["full_rate_ms"])),
        _figure(words.ms(figures["unavailable_ms"])),
        element("td", _meter((figures["unavailable_ms"] or 0) / longest_ms), class_="meter"),
    ]
    return element("tr", "".join(cells), class_="idle" if idle else None, data_fault=number)


def _lasted(fault: Json) -> str:
    end_ns = fault.get("end_ns")
    return "to the end" if end_ns is None else words.ms((end_ns - fault["start_ns"]) / 1e6)


def _meter(share: float) -> str:
    return element("i", "", style=f"width:{max(share * _BAR_PX, 1):.0f}px") if share else ""


def stretches(faults: list[Json]) -> str:
    """Latency and rate before, during and after each fault."""
    top = "".join(
        element("th", name, colspan=span, class_="span" if name else None)
        for name, span in (("", 2), ("before", 4), ("during", 6), ("after", 4))
    )
    four = ("rate /s", "p50", "p99", "max")
    head = [("#", ""), ("fault", "")]
    for place, names in enumerate((four, (*four, "failed", "unknown"), four)):
        head += [(name, "figure first" if not number else "figure") for number, name in enumerate(names)]
        assert place < 3
    lines = []
    for number, fault in enumerate(faults, 1):
        figures = fault["figures"]
        cells = [element("td", str(number), class_="number"), element("td", escape(fault["name"]))]
        for name in ("before", "during", "after"):
            cells += _stretch_cells(figures[name], counted=name == "during")
        lines.append(element("tr", "".join(cells), data_fault=number))
    return _table(element("tr", top) + _head(head), lines, "stretches")


def _stretch_cells(stretch: Json, *, counted: bool) -> list[str]:
    told = [
        words.rate(stretch["rate"]),
        *(words.ms(stretch[name]) for name in ("p50_ms", "p99_ms", "max_ms")),
    ]
    if counted:
        told += [words.plain(stretch["failed"]), words.plain(stretch["unknown"])]
    return [_figure(cell, first=not place) for place, cell in enumerate(told)]


def around(items: list[Neighbour], start_ns: int) -> str:
    """The neighbours of the first violation, in words."""
    rows = []
    for item in items:
        record = item.record
        who = words.who(record)
        took = words.ms((item.end_ns - item.start_ns) / 1e6) if record.get("return_ns") is not None else "–"
        cells = (
            f"{(item.start_ns - start_ns) / 1e9:.6f} s", took, who, str(record.get("id", "–")),
            words.request(record), words.answer(record), item.why,
        )  # fmt: skip
        line = "".join(element("td", escape(cell)) for cell in cells)
        rows.append(element("tr", line, class_="broken" if item.why == "violation" else None))
    head = tuple((name, "") for name in ("at", "took", "who", "id", "asked", "answer", "why it stands here"))
    return _table(_head(head), rows, "around")


def plan(document: Json) -> str:
    """A simulation's schedule: its faults, and what differs from the defaults."""
    faults = [
        (
            f"{fault.get('at_s', 0):.3f} s", str(fault.get("fault", "?")),
            words.plain(fault.get("choice", 0)),
            f"{fault.get('lasts_s', 0):.3f} s", words.plain(fault.get("amount", 0)),
        )
        for fault in document.get("faults", ())
    ]  # fmt: skip
    others = [
        (name, words.plain(document[name]))
        for name in ("world", "seed", "duration_s", "mutant", "settings", "load")
        if document.get(name) not in (None, {}, [])
    ]
    shown = table(
        ("fault at", "fault", "choice", "lasts", "amount"), sorted(faults, key=lambda f: float(f[0][:-2]))
    )
    return table(("plan", "value"), others) + (
        shown if faults else "<p>No fault is left in the schedule.</p>"
    )


def pairs(head: tuple[str, str], values: Json) -> str:
    """Names and values."""
    return table(head, [(str(name), words.plain(value)) for name, value in values.items()])


def _table(head: str, lines: list[str], class_: str) -> str:
    inner = element("thead", head) + element("tbody", "".join(lines))
    return element("div", element("table", inner, class_=class_ or None), class_="wide")


def _head(names: Iterable[tuple[str, str]]) -> str:
    return element(
        "tr", "".join(element("th", escape(name), class_=class_ or None) for name, class_ in names)
    )


def _figure(told: str, *, first: bool = False) -> str:
    return element("td", escape(told), class_="figure first" if first else "figure")


def _is_figure(told: str) -> bool:
    return told[:1].isdigit() or told == "–"
