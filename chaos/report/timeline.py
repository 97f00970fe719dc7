"""The picture of a run, or of a part of it: faults, leaders, client lanes, rate and latency over one axis."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Final

from chaos.report import svg, words
from chaos.report.calls import Call, fault_end_ns
from chaos.report.figures import FaultFigures
from chaos.report.lanes import STATES, Lane, lanes
from chaos.report.leaders import Leadership
from chaos.report.rows import Row, cluster_rows
from chaos.report.scale import LogScale, TimeScale, log_scale, ticks
from chaos.report.series import Bucket, bucket_s, dots, quantiles, rates
from chaos.report.summary import Report, has_no_effect

WIDTH: Final = 1200
LEFT: Final = 150
RIGHT: Final = 22
COLUMNS: Final = WIDTH - LEFT - RIGHT
LANES_MAX: Final = 64
_ROW: Final = 17
_RATE_HEIGHT: Final = 84
_LATENCY_HEIGHT: Final = 168
_BUCKETS_MAX: Final = 264
_CHARACTER: Final = 6.3  # px of an average letter at 11 px
_OUTAGE_SHOWN_MS: Final = 100


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the run that is drawn; `name` is what it is called for those who cannot see it."""

    start_ns: int
    end_ns: int
    name: str


def draw_timeline(report: Report, window: Window, violation_ns: int | None = None) -> str:
    """An <svg>; `violation_ns` is where the first violation is marked."""
    return _Timeline(report, window, violation_ns).draw()


def lane_height(number: int) -> int:
    """Few clients get tall lanes; sixty still fit a screen."""
    return next((height for most, height in ((4, 20), (10, 15), (20, 11), (40, 8)) if number <= most), 6)


class _Timeline:
    def __init__(self, report: Report, window: Window, violation_ns: int | None) -> None:
        self._report = report
        self._window = window
        self._violation_ns = violation_ns
        self._calls = report.run.between(window.start_ns, window.end_ns)
        self._scale = TimeScale(window.start_ns, window.end_ns, LEFT, COLUMNS)
        self._y = 30.0
        self._parts: list[str] = []

    def draw(self) -> str:
        top = self._y
        self._cluster(cluster_rows(self._report.members, self._report.led, self._report.run.faults))
        self._lanes()
        self._rate()
        self._latency()
        bottom = self._y
        behind = [self._grid(top, bottom), self._bands(top, bottom)]
        before = [self._edges(top, bottom), self._fault_numbers(), self._violation(top, bottom)]
        height = bottom + 26
        start_s = self._report.run.seconds(self._window.start_ns)
        return svg.element(
            "svg", "".join([*behind, *self._parts, *before]),
            class_="timeline", viewBox=f"0 0 {WIDTH} {height:.0f}", role="img", aria_label=self._window.name,
            data_start=f"{start_s:.6f}", data_length=f"{self._scale.length_s:.6f}",
            data_left=LEFT, data_width=COLUMNS, data_top=top, data_bottom=bottom,
        )  # fmt: skip

    # -- what spans all sections

    def _grid(self, top: float, bottom: float) -> str:
        run = self._report.run
        start_s, end_s = run.seconds(self._window.start_ns), run.seconds(self._window.end_ns)
        parts = []
        for at_s in ticks(start_s, end_s, 12):
            x = self._scale.x(run.start_ns + at_s * 1e9)
            parts.append(svg.line(x, top, x, bottom, "grid"))
            parts.append(svg.text(x, bottom + 17, f"{at_s:g} s", "tick middle"))
        return svg.group(parts, "axis", data_part="axis")

    def _faults(self) -> list[tuple[int, dict[str, Any], float, float]]:
        """Number, fault, first and last x of those in sight."""
        found = []
        for number, fault in enumerate(self._report.run.faults, 1):
            end_ns = fault_end_ns(fault, self._window.end_ns)
            if self._scale.holds(fault["start_ns"], end_ns):
                x = self._scale.x(fault["start_ns"])
                found.append((number, fault, x, max(self._scale.x(end_ns), x + 2)))
        return found

    def _bands(self, top: float, bottom: float) -> str:
        parts = [
            svg.element(
                "a",
                svg.rect(
                    x, top - 14, end - x, bottom - top + 14, _band_class(fault), _fault_title(number, fault)
                ),
                href=f"#fault-{number}", data_fault=number,
            )
            for number, fault, x, end in self._faults()
        ]  # fmt: skip
        return svg.group(parts, "bands", data_part="bands")

    def _edges(self, top: float, bottom: float) -> str:
        """Over everything: where each fault began and ended."""
        parts = []
        for _, _, x, end in self._faults():
            parts += [
                svg.line(x, top - 14, x, bottom, "edge"),
                svg.line(end, top - 14, end, bottom, "edge end"),
            ]
        return svg.group(parts, "edges")

    def _fault_numbers(self) -> str:
        parts, free = [], 0.0
        for number, fault, x, _ in self._faults():
            wide = _CHARACTER * len(str(number)) + 8
            if x >= free:
                class_ = "flag idle" if has_no_effect(fault) else "flag"
                label = svg.rect(x, 2, wide, 14, class_) + svg.text(
                    x + wide / 2, 13, str(number), "flag middle"
                )
                told = svg.element("title", escape(_fault_title(number, fault)))
                parts.append(svg.element("a", told + label, href=f"#fault-{number}", data_fault=number))
                free = x + wide + 2
        return svg.group(parts, "numbers", data_part="numbers")

    def _violation(self, top: float, bottom: float) -> str:
        at_ns = self._violation_ns
        if at_ns is None or not self._scale.holds(at_ns, at_ns):
            return ""
        x = self._scale.x(at_ns)
        name = self._report.summary["first_violation"]["invariant"]
        wide = _CHARACTER * len(name) + 12
        left = min(x, WIDTH - wide)
        parts = [
            svg.line(x, 16, x, bottom, "violation"),
            svg.rect(left, top - 14, wide, 15, "violation"),
            svg.text(left + wide / 2, top - 3, name, "violation middle"),
        ]
        return svg.element("a", "".join(parts), href="#violation", class_="mark", data_part="violation")

    # -- sections, from the top down

    def _title(self, name: str, told: str = "") -> None:
        self._y += 26
        self._parts.append(svg.text(LEFT - 10, self._y - 9, name, "section end"))
        if told:
            self._parts.append(svg.text(LEFT + 2, self._y - 9, told, "note"))

    def _cluster(self, rows: list[Row]) -> None:
        if not rows:
            return
        self._title("cluster", "green: leads, with its term · red: under a fault")
        parts = []
        for row in rows:
            middle = self._y + _ROW / 2
            parts.append(svg.text(LEFT - 10, middle + 4, row.name, "tick end"))
            parts.append(svg.line(LEFT, middle, LEFT + COLUMNS, middle, "track"))
            hits = [(x, end) for number, _, x, end in self._faults() if number in row.faults]
            parts += [self._led(led, hits) for led in row.led]
            starts = [self._scale.x(self._report.run.faults[number - 1]["start_ns"]) for number in row.faults]
            following = [*starts, float(WIDTH)][1:]
            parts += [self._hit(*pair) for pair in zip(row.faults, following, strict=True)]
            self._y += _ROW
        self._parts.append(svg.group(parts, "cluster", data_part="cluster"))

    def _led(self, led: Leadership, hits: list[tuple[float, float]]) -> str:
        """The term is written behind what hit the member at that moment."""
        if not self._scale.holds(led.start_ns, led.end_ns):
            return ""
        x, end = self._scale.x(led.start_ns), self._scale.x(led.end_ns)
        title = f"{led.member} leads in term {led.term}"
        box = svg.rect(x, self._y + 2, max(end - x, 1.5), _ROW - 4, "led", title, data_term=led.term)
        free = max([x, *(hit_end for hit_x, hit_end in hits if hit_x <= x + 30 and hit_end > x)])
        until = min([end, *(hit_x for hit_x, _ in hits if hit_x > free)])
        told = next((name for name in (f"term {led.term}", str(led.term)) if _fits(name, until - free)), "")
        return box + (svg.text(free + 5, self._y + 13, told, "led") if told else "")

    def _hit(self, number: int, until: float) -> str:
        """Its name or number is written if there is room before `until`, where the next one lies over it."""
        fault = self._report.run.faults[number - 1]
        end_ns = fault_end_ns(fault, self._window.end_ns)
        if not self._scale.holds(fault["start_ns"], end_ns):
            return ""
        x = self._scale.x(fault["start_ns"])
        wide = max(self._scale.x(end_ns) - x, 2)
        box = svg.rect(x, self._y + 2, wide, _ROW - 4, "hit", _fault_title(number, fault))
        told = next((name for name in (fault["name"], str(number)) if _fits(name, min(wide, until - x))), "")
        return box + (svg.text(x + 5, self._y + 13, told, "hit") if told else "")

    def _lanes(self) -> None:
        run, window, slow_from_ms = self._report.run, self._window, self._report.slow_ms
        found = lanes(
            [*self._calls, *run.harness], window.start_ns, window.end_ns,
            columns=COLUMNS, lanes_max=LANES_MAX, slow_from_ms=slow_from_ms,
        )  # fmt: skip
        self._title("clients", self._lanes_told(slow_from_ms))
        height = lane_height(len(found))
        every = -(-10 // height)
        parts = []
        for place, lane in enumerate(found):
            middle = self._y + height / 2
            if place % every == 0:
                parts.append(svg.text(LEFT - 10, middle + 3.5, self._lane_label(lane), "tick end"))
            parts += [_lane_bar(lane, state, middle, height) for state in STATES if state in lane.runs]
            self._y += height
        self._parts.append(svg.group(parts, "lanes", data_part="lanes"))

    def _lane_label(self, lane: Lane) -> str:
        harness = {call.client for call in self._report.run.harness}
        return "read back" if lane.label in harness else lane.label

    def _lanes_told(self, slow_from_ms: float) -> str:
        column_ms = self._scale.length_s * 1e3 / COLUMNS
        return (
            f"from call to answer · a column of pixels is {words.ms(column_ms)} and shows the worst of what "
            f"falls into it: unknown, failed, slower than {words.ms(slow_from_ms)}, answered"
        )

    def _rate(self) -> None:
        window = self._window
        step_s = bucket_s(self._scale.length_s, _BUCKETS_MAX)
        buckets = rates(self._calls, window.start_ns, window.end_ns, step_s)
        highest = max((each.writes + each.reads for each in buckets), default=0.0) or 1.0
        self._title(
            "answers / s",
            f"acknowledged writes (dark) and reads, each {words.ms(step_s * 1e3)} · "
            "bracket: the longest time without an acknowledged write",
        )
        top, bottom = self._y, self._y + _RATE_HEIGHT
        parts = [svg.line(LEFT, bottom, LEFT + COLUMNS, bottom, "base")]
        for value in ticks(0, highest, 3):
            y = bottom - value / highest * _RATE_HEIGHT
            parts += [
                svg.text(LEFT - 10, max(y + 4, top + 8), words.rate(value) if value else "0", "tick end")
            ]
            parts += [svg.line(LEFT, y, LEFT + COLUMNS, y, "grid")]
        parts.append(self._area(buckets, [b.writes + b.reads for b in buckets], highest, bottom, "reads"))
        parts.append(self._area(buckets, [b.writes for b in buckets], highest, bottom, "writes"))
        self._parts.append(svg.group(parts, "rate", data_part="rate"))
        self._parts.append(svg.group(self._outages(bottom + 7), "outages", data_part="outages"))
        self._y = bottom + 12

    def _area(
        self, buckets: list[Bucket], values: list[float], highest: float, bottom: float, class_: str
    ) -> str:
        """Steps from the base line up."""
        path = f"M{LEFT} {svg.number(bottom)}"
        for place, (bucket, value) in enumerate(zip(buckets, values, strict=True)):
            following = buckets[place + 1].start_ns if place + 1 < len(buckets) else self._window.end_ns
            x, end = self._scale.x(bucket.start_ns), self._scale.x(following)
            y = bottom - value / highest * _RATE_HEIGHT
            path += f"L{svg.number(x)} {svg.number(y)}H{svg.number(end)}"
        return svg.element("path", d=f"{path}V{svg.number(bottom)}Z", class_=class_)

    def _outages(self, y: float) -> list[str]:
        brackets = sorted(
            (self._scale.x(start_ns), self._scale.x(end_ns), words.ms((end_ns - start_ns) / 1e6))
            for start_ns, end_ns in _pauses(self._report.figures)
            if self._scale.holds(start_ns, end_ns)
        )
        parts = []
        for place, (x, end, told) in enumerate(brackets):
            path = f"M{x:.1f} {y - 3:.1f}v6M{x:.1f} {y:.1f}H{max(end, x + 2):.1f}m0 -3v6"
            parts.append(svg.element("path", d=path, class_="outage"))
            following = brackets[place + 1][0] if place + 1 < len(brackets) else WIDTH
            if end + _CHARACTER * len(told) + 6 < following:
                parts.append(svg.text(end + 4, y + 4, told, "outage"))
        return parts

    def _latency(self) -> None:
        self._title(
            "latency",
            "each call by its start, log scale; no answer ever: at the upper edge · lines: median and p99",
        )
        in_sight = [call for call in self._calls if call.call_ns >= self._window.start_ns]
        values = [(call.took_ns or 0) / 1e6 for call in in_sight]
        scale = log_scale(values, self._y, self._y + _LATENCY_HEIGHT)
        parts = [self._latency_axis(scale)]
        parts += self._dots(in_sight, scale)
        parts += self._quantiles(in_sight, scale)
        self._parts.append(svg.group(parts, "latency", data_part="latency"))
        self._y += _LATENCY_HEIGHT + 4

    def _latency_axis(self, scale: LogScale) -> str:
        parts = []
        for value in scale.decades():
            y = scale.y(value)
            parts += [svg.text(LEFT - 10, max(y + 4, scale.top + 8), words.ms(value), "tick end")]
            parts += [svg.line(LEFT, y, LEFT + COLUMNS, y, "grid")]
        return svg.group(parts, "axis")

    def _dots(self, calls: list[Call], scale: LogScale) -> list[str]:
        """The worst outcomes last, so that they lie on top."""
        rows = _LATENCY_HEIGHT // 2
        found = dots(
            calls, self._window.start_ns, self._window.end_ns,
            columns=COLUMNS, rows=rows, low_ms=scale.low, high_ms=scale.high,
        )  # fmt: skip
        by_class: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for dot in found:
            place = (LEFT + dot.column + 0.5, scale.bottom - (dot.row + 0.5) * _LATENCY_HEIGHT / rows)
            by_class.setdefault((dot.outcome, dot.weight), []).append(place)
        return [
            svg.element(
                "path", d=svg.points(by_class[outcome, weight]), class_=f"dot {outcome} weight-{weight}"
            )
            for outcome, weight in sorted(by_class, key=lambda key: (STATES.index(key[0]), key[1]))
        ]

    def _quantiles(self, calls: list[Call], scale: LogScale) -> list[str]:
        """Median and p99 as steps; a bucket without an answer leaves a gap."""
        step_s = bucket_s(self._scale.length_s, _BUCKETS_MAX // 3)
        found = quantiles(calls, self._window.start_ns, self._window.end_ns, step_s)
        lines = []
        for name in ("p50_ms", "p99_ms"):
            path, reached = "", -1.0
            for each in found:
                x, end = self._scale.x(each.start_ns), self._scale.x(each.start_ns + step_s * 1e9)
                path += f"{'L' if x <= reached else 'M'}{x:.1f} {scale.y(getattr(each, name)):.1f}H{end:.1f}"
                reached = end + 0.01
            lines.append(svg.element("path", d=path, class_=f"quantile {name.removesuffix('_ms')}"))
        return lines


def _pauses(figures: list[FaultFigures]) -> set[tuple[int, int]]:
    """Start and end of the times without a write that are worth a bracket; overlapping faults share one."""
    return {
        (cost.unavailable_from_ns, cost.unavailable_from_ns + int(cost.unavailable_ms * 1e6))
        for cost in figures
        if cost.unavailable_ms is not None and cost.unavailable_ms >= _OUTAGE_SHOWN_MS
    }


def _lane_bar(lane: Lane, state: str, middle: float, height: int) -> str:
    path = svg.bars(lane.runs[state], LEFT, middle)
    return svg.element("path", d=path, class_=f"bar {state}", stroke_width=height - (1 if height <= 8 else 2))


def _band_class(fault: dict[str, Any]) -> str:
    return "band idle" if has_no_effect(fault) else "band"


def _fault_title(number: int, fault: dict[str, Any]) -> str:
    without = " (no effect)" if has_no_effect(fault) else ""
    return f"fault {number}: {words.fault(fault)}{without}"


def _fits(told: str, wide: float) -> bool:
    return wide >= _CHARACTER * len(told) + 8
