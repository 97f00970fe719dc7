"""Client lanes: what each client was doing in each column of pixels.

A history of 100,000 operations has more of them than a picture has columns. Each column of a lane shows the
worst state of the calls that touch it, so that nothing bad can hide behind something good.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from chaos.report.calls import Call, client_order

# From harmless to worst; the place in this tuple + 1 is the code of a column, 0 is idle.
STATES: Final = ("ok", "slow", "fail", "unknown")
_SLOW_MS_MIN: Final = 100.0
_SLOW_MEDIANS: Final = 10


@dataclass(frozen=True, slots=True)
class Lane:
    """`runs`: by state, (first column, number of columns), in order."""

    label: str
    runs: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


def slow_ms(calls: Iterable[Call]) -> float:
    """An acknowledged call that took longer is drawn as slow: ten medians, at least 100 ms."""
    took = sorted(call.took_ns or 0 for call in calls if call.outcome == "ok")
    median_ms = took[len(took) // 2] / 1e6 if took else 0.0
    return max(_SLOW_MS_MIN, _SLOW_MEDIANS * median_ms)


def lanes(
    calls: Iterable[Call], start_ns: int, end_ns: int, *, columns: int, lanes_max: int, slow_from_ms: float
) -> list[Lane]:
    """One lane a client in the order of their ids; beyond `lanes_max` clients, neighbours share one."""
    in_sight = [call for call in calls if call.call_ns <= end_ns and call.until_ns >= start_ns]
    labels = _labels(sorted({call.client for call in in_sight}, key=client_order), lanes_max)
    cells = {label: bytearray(columns) for label in labels.values()}
    scale = columns / max(end_ns - start_ns, 1)
    for call in in_sight:
        first = min(max(int((call.call_ns - start_ns) * scale), 0), columns - 1)
        last = min(max(int((call.until_ns - start_ns) * scale), first), columns - 1)
        _raise(cells[labels[call.client]], first, last, _code(call, slow_from_ms))
    return [Lane(label, _runs(cell)) for label, cell in cells.items()]


def _labels(clients: list[str], lanes_max: int) -> dict[str, str]:
    """Client -> the label of its lane."""
    size = -(-len(clients) // max(lanes_max, 1)) or 1
    labels: dict[str, str] = {}
    for place in range(0, len(clients), size):
        group = clients[place : place + size]
        label = group[0] if len(group) == 1 else f"{group[0]}–{group[-1]}"
        labels |= dict.fromkeys(group, label)
    return labels


def _code(call: Call, slow_from_ms: float) -> int:
    if call.outcome == "ok" and (call.took_ns or 0) > slow_from_ms * 1e6:
        return STATES.index("slow") + 1
    return STATES.index(call.outcome) + 1


def _raise(cell: bytearray, first: int, last: int, code: int) -> None:
    for column in range(first, last + 1):
        if cell[column] < code:
            cell[column] = code


def _runs(cell: bytearray) -> dict[str, list[tuple[int, int]]]:
    """Neighbouring columns of one state are one bar."""
    runs: dict[str, list[tuple[int, int]]] = {}
    column = 0
    for code, group in groupby(cell):
        length = sum(1 for _ in group)
        if code:
            runs.setdefault(STATES[code - 1], []).append((column, length))
        column += length
    return runs
