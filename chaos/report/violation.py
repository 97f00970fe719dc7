"""The picture of a violation: who was doing what around it, on one axis."""

from __future__ import annotations

from typing import Final

from chaos.report import svg, words
from chaos.report.calls import Run
from chaos.report.neighbours import Neighbour
from chaos.report.scale import TimeScale, ticks
from chaos.report.timeline import LEFT, WIDTH

_LANE: Final = 24
_TEXT_WIDTH: Final = 450
_CHARACTERS_MAX: Final = 62
# So much of a long call is shown before the first and after the last moment of the violation, in its lengths.
_SIGHT: Final = 1.5


def draw_violation(around: list[Neighbour], run: Run) -> str:
    """An <svg> with a line a record, in the order of their starts; "" if there is nothing to draw."""
    if not around:
        return ""
    start_ns, end_ns = _sight(around)
    scale = TimeScale(start_ns, end_ns, LEFT, WIDTH - LEFT - _TEXT_WIDTH)
    top, bottom = 8.0, 8.0 + _LANE * len(around)
    parts = [_axis(scale, run, top, bottom), _own_bands(around, scale, top, bottom)]
    parts += [_line(item, scale, top + _LANE * place, run) for place, item in enumerate(around)]
    return svg.element(
        "svg", "".join(parts), class_="neighbours", viewBox=f"0 0 {WIDTH} {bottom + 24:.0f}", role="img",
        aria_label="the first violation and the operations around it",
    )  # fmt: skip


def _sight(around: list[Neighbour]) -> tuple[int, int]:
    """The violation's own records with some time around them, as far as the neighbours reach."""
    own = [item for item in around if item.why == "violation"]
    first, last = min(item.start_ns for item in own), max(item.end_ns for item in own)
    margin_ns = max(int((last - first) * _SIGHT), 1_000_000)
    start_ns = max(first - margin_ns, min(item.start_ns for item in around))
    end_ns = min(last + margin_ns, max(item.end_ns for item in around))
    edge_ns = max((end_ns - start_ns) // 40, 1)
    return start_ns - edge_ns, end_ns + edge_ns


def _axis(scale: TimeScale, run: Run, top: float, bottom: float) -> str:
    start_s, end_s = run.seconds(scale.start_ns), run.seconds(scale.end_ns)
    parts = []
    for at_s in ticks(start_s, end_s, 6):
        x = scale.x(run.start_ns + at_s * 1e9)
        parts.append(svg.line(x, top, x, bottom, "grid"))
        parts.append(svg.text(x, bottom + 17, f"{at_s:.9g} s", "tick middle"))
    return svg.group(parts, "axis")


def _own_bands(around: list[Neighbour], scale: TimeScale, top: float, bottom: float) -> str:
    """The violation's own time behind everything, to see what overlaps it."""
    return "".join(
        svg.rect(x, top, max(scale.x(item.end_ns) - x, 1.5), bottom - top, "own")
        for item in around
        if item.why == "violation"
        for x in [scale.x(item.start_ns)]
    )


def _line(item: Neighbour, scale: TimeScale, y: float, run: Run) -> str:
    record = item.record
    x, end = scale.x(item.start_ns), scale.x(item.end_ns)
    told = words.request(record)
    answered = words.answer(record)
    title = f"{told} → {answered} ({item.why}); {run.seconds(item.start_ns):.6f} s"
    shape = f"call {record.get('outcome', 'event')}" + (" broken" if item.why == "violation" else "")
    who = words.who(record)
    bold = "broken" if item.why == "violation" else ""
    parts = [
        svg.text(LEFT - 10, y + 16, f"{who} #{record['id']}" if "id" in record else who, f"tick end {bold}"),
        svg.line(LEFT, y + _LANE / 2, WIDTH - _TEXT_WIDTH, y + _LANE / 2, "track"),
        svg.rect(x, y + 5, max(end - x, 3), _LANE - 10, shape, title)
        if scale.holds(item.start_ns, item.end_ns)
        else _out_of_sight(item, scale, y),
        svg.text(WIDTH - _TEXT_WIDTH + 10, y + 16, _short(told, answered), f"note {bold}"),
    ]
    return svg.group(parts, "neighbour", data_why=item.why)


def _out_of_sight(item: Neighbour, scale: TimeScale, y: float) -> str:
    """How far away, at the edge of the picture."""
    if item.end_ns < scale.start_ns:
        return svg.text(
            LEFT + 4, y + 16, f"◂ {words.ms((scale.start_ns - item.end_ns) / 1e6)} earlier", "far"
        )
    told = f"{words.ms((item.start_ns - scale.end_ns) / 1e6)} later ▸"
    return svg.text(WIDTH - _TEXT_WIDTH - 4, y + 16, told, "far end")


def _short(told: str, answered: str) -> str:
    """The answer is never cut."""
    room = max(_CHARACTERS_MAX - len(answered), 12)
    return (told if len(told) <= room else told[: room - 1] + "…") + " → " + answered
