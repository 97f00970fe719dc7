"""Reports as a picture: bars on a logarithmic scale, one panel a figure, no library between."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape

_WIDTH: Final = 1110
_LEFT: Final = 480
_BAR: Final = 12
_GAP: Final = 12
_HEAD: Final = 46
_FONT: Final = "font-family='sans-serif' font-size='11'"
_COLORS: Final = {"ours": "#2563eb", "peer": "#f59e0b", "bare": "#9ca3af"}
_NAMES: Final = {"ours": "raftkube", "peer": "etcd", "bare": "bare socket loop"}
# Of each bench that is drawn: panels, and the figure that a panel shows.
PANELS: Final = {
    "watch": {
        "deliveries a second": "rate",
        "CPU seconds of the server for a million deliveries": "cpu_s_per_million",
    },
    "api-watch": {
        "API: deliveries a second": "rate",
        "API: CPU seconds of the servers for a million deliveries": "cpu_s_per_million",
    },
    "api-list": {"API: MB of lists a second": "mb_per_s"},
    "api-rates": {
        "API: operations a second": "rate",
        "API: p99 of an operation, ms": "p99_ms",
        "API: CPU seconds of the servers for 1,000 operations": "cpu_s_per_1000",
    },
    "api-idle": {"API: seconds until all watches are served again": "reconnected_s"},
}


class Bar(NamedTuple):
    """A side's figure with its spread over the rounds."""

    side: str
    value: float
    low: float
    high: float


Group = tuple[str, list[Bar]]


def draw_report(report: dict[str, Any]) -> bytes:
    """The SVG of a report, or of several put together, whose runs then say their `bench` themselves."""
    panels: list[tuple[str, list[Group]]] = []
    for bench, figures in PANELS.items():
        cases = [case for case in report["runs"] if case.get("bench", report.get("bench")) == bench]
        for title, key in figures.items():
            if cases:
                panels.append((title, [(_label(case), _bars(case, key)) for case in cases]))
    waits = [
        (f"{_label(case)}, at {step['share']} %", _bars(step, "p99_ms"))
        for case in report["runs"]
        for step in case.get("steps", ())
    ]
    if waits:
        panels.append(("p99 from write to delivery, ms, at shares of etcd's highest rate", waits))
    return _page(panels, f"commit {report['commit']}, verdict {report['verdict']}").encode()


def _label(case: dict[str, Any]) -> str:
    """Without the bench's name, which the panel says."""
    return str(case["case"]).partition(": ")[2]


def _bars(place: dict[str, Any], key: str) -> list[Bar]:
    return [
        Bar(side, place[side][key], place[side].get(f"{key}_min", 0), place[side].get(f"{key}_max", 0))
        for side in _COLORS
        if key in place.get(side, ())
    ]


def _page(panels: list[tuple[str, list[Group]]], foot: str) -> str:
    parts, top = [], 10
    for title, groups in panels:
        drawn, height = _panel(title, groups, top)
        parts.append(drawn)
        top += height
    parts.append(f"<text x='10' y='{top + 12}' {_FONT} fill='#666'>{escape(foot)}</text>")
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{top + 24}'>"
        f"<rect width='100%' height='100%' fill='white'/>{''.join(parts)}</svg>\n"
    )


def _panel(title: str, groups: list[Group], top: int) -> tuple[str, int]:
    values = [value for _, bars in groups for bar in bars for value in bar[1:] if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def x(value: float) -> float:
        share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return _LEFT + share * (_WIDTH - _LEFT - 90)

    y = top + _HEAD
    rows = []
    for label, bars in groups:
        rows.append(f"<text x='{_LEFT - 8}' y='{y + 10}' text-anchor='end' {_FONT}>{escape(label)}</text>")
        for bar in bars:
            rows.append(_bar(bar, x, y))
            y += _BAR
        y += _GAP
    ticks = [_tick(10.0**power, x, top + _HEAD - 6, y) for power in range(low, high + 1)]
    head = f"<text x='10' y='{top + 14}' {_FONT} font-weight='bold'>{escape(title)}</text>{_legend(top + 14)}"
    return head + "".join(ticks + rows), y - top + 10


def _bar(bar: Bar, x: Any, y: int) -> str:
    end, middle = x(bar.value), y + _BAR / 2
    spread = ""
    if bar.high > bar.low:
        ends = f"x1='{x(bar.low):.1f}' x2='{x(bar.high):.1f}' y1='{middle}' y2='{middle}'"
        spread = f"<line {ends} stroke='black'/>"
    beside = max(end, x(bar.high) if bar.high else end) + 5
    told = f"{bar.value:,.0f}" if bar.value >= 1000 else f"{bar.value:.3g}"
    return (
        f"<rect x='{_LEFT}' y='{y}' width='{max(end - _LEFT, 1):.1f}' height='{_BAR - 2}' "
        f"fill='{_COLORS[bar.side]}'/>{spread}<text x='{beside:.1f}' y='{y + 9}' {_FONT}>{told}</text>"
    )


def _tick(value: float, x: Any, top: int, bottom: int) -> str:
    at = f"{x(value):.1f}"
    return (
        f"<line x1='{at}' x2='{at}' y1='{top}' y2='{bottom}' stroke='#ddd'/>"
        f"<text x='{at}' y='{top - 4}' text-anchor='middle' {_FONT} fill='#666'>{value:,g}</text>"
    )


def _legend(y: int) -> str:
    parts, left = [], _WIDTH - 330
    for side, color in _COLORS.items():
        parts.append(f"<rect x='{left}' y='{y - 9}' width='10' height='10' fill='{color}'/>")
        parts.append(f"<text x='{left + 14}' y='{y}' {_FONT}>{_NAMES[side]}</text>")
        left += 100
    return "".join(parts)
