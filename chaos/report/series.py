"""Latency and rate over time, gathered into what a picture can show."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from chaos.report.calls import Call

# How many calls make a dot of each weight: 1, from 2, from 5.
WEIGHTS: Final = (1, 2, 5)
_BUCKETS_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0)


class Dot(NamedTuple):
    """A cell of the scatter: place in [0, columns) x [0, rows), rows counted from the lowest latency up."""

    column: int
    row: int
    outcome: str
    weight: int  # the place in WEIGHTS


class Bucket(NamedTuple):
    """Acknowledged operations per second in [start_ns, start_ns + length)."""

    start_ns: int
    writes: float
    reads: float


class Quantiles(NamedTuple):
    """Latency of acknowledged operations that were called in a bucket from `start_ns` on."""

    start_ns: int
    p50_ms: float
    p99_ms: float


def dots(
    calls: Iterable[Call],
    start_ns: int,
    end_ns: int,
    *,
    columns: int,
    rows: int,
    low_ms: float,
    high_ms: float,
) -> list[Dot]:
    """Every call by its start and its latency (log scale), those without an answer in the highest row; calls
    that fall into one cell are one dot."""
    cells: Counter[tuple[int, int, str]] = Counter()
    x_scale = columns / max(end_ns - start_ns, 1)
    y_scale = rows / math.log(high_ms / low_ms)
    for call in calls:
        if not start_ns <= call.call_ns <= end_ns:
            continue
        took_ns = call.took_ns
        latency_ms = high_ms if took_ns is None else max(took_ns / 1e6, low_ms)
        column = min(int((call.call_ns - start_ns) * x_scale), columns - 1)
        row = min(int(math.log(latency_ms / low_ms) * y_scale), rows - 1)
        cells[column, row, call.outcome] += 1
    return [
        Dot(column, row, outcome, bisect_right(WEIGHTS, count) - 1)
        for (column, row, outcome), count in sorted(cells.items())
    ]


def bucket_s(length_s: float, buckets_max: int) -> float:
    """The shortest round length that needs no more than `buckets_max`."""
    return next((step for step in _BUCKETS_S if length_s / step <= buckets_max), _BUCKETS_S[-1])


def rates(calls: Iterable[Call], start_ns: int, end_ns: int, step_s: float) -> list[Bucket]:
    """Acknowledged operations by their return; the last bucket may be cut and counts by its true length."""
    step_ns = round(step_s * 1e9)
    number = max(1, -(-(end_ns - start_ns) // step_ns))
    writes, reads = [0] * number, [0] * number
    for call in calls:
        if call.outcome == "ok" and call.return_ns is not None and start_ns <= call.return_ns < end_ns:
            (writes if call.writes else reads)[(call.return_ns - start_ns) // step_ns] += 1
    found = []
    for place in range(number):
        at_ns = start_ns + place * step_ns
        length_s = min(step_ns, max(end_ns - at_ns, 1)) / 1e9
        found.append(Bucket(at_ns, writes[place] / length_s, reads[place] / length_s))
    return found


def quantiles(calls: Iterable[Call], start_ns: int, end_ns: int, step_s: float) -> list[Quantiles]:
    """For each bucket in which something was called that was acknowledged, in order."""
    step_ns = round(step_s * 1e9)
    took: dict[int, list[int]] = {}
    for call in calls:
        if call.outcome == "ok" and call.return_ns is not None and start_ns <= call.call_ns <= end_ns:
            took.setdefault((call.call_ns - start_ns) // step_ns, []).append(call.return_ns - call.call_ns)
    found = []
    for place in sorted(took):
        in_order = sorted(took[place])
        p50, p99 = (percentile(in_order, share) / 1e6 for share in (0.5, 0.99))
        found.append(Quantiles(start_ns + place * step_ns, p50, p99))
    return found


def percentile(in_order: list[int], share: float) -> int:
    """The smallest value that at least `share` of them do not exceed; `in_order` is not empty."""
    return in_order[max(0, math.ceil(len(in_order) * share) - 1)]


def count_between(in_order: list[int], start: int, end: int) -> int:
    """How many lie in [start, end)."""
    return bisect_left(in_order, end) - bisect_left(in_order, start)
