"""What each fault cost: times until it was seen, until another led, until writes went on, until the full
rate; and latency and rate before, during and after it.

A fault's own time reaches from its start to `until`: the first later fault that starts after it ended, or the
end of the load. *Before* reaches back to the end of the fault before, *after* to `until`; both are at most
STRETCH_S long. A call belongs to *during* if it overlaps the fault.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from chaos.report.calls import Call, Run, fault_end_ns
from chaos.report.series import count_between, percentile

STRETCH_S: Final = 10.0
FULL_RATE: Final = 0.9
FULL_RATE_WINDOW_S: Final = 1.0
# A pause between acknowledged writes is an outage when it is so many times the longest before any fault.
_OUTAGE: Final = 2
_SHORTEST_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Stretch:
    """Answers in one stretch of time; None: nothing to count, or no time to count in."""

    length_s: float
    rate: float | None  # acknowledged operations per second
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    failed: int
    unknown: int


@dataclass(frozen=True, slots=True)
class FaultFigures:
    """Times in ms from the fault's start; None: not within the fault's own time, or not told."""

    before: Stretch
    during: Stretch
    after: Stretch
    detect_ms: float | None
    elect_ms: float | None
    first_write_ms: float | None
    full_rate_ms: float | None
    unavailable_ms: float | None  # the longest time without an acknowledged write
    unavailable_from_ns: int
    until_ns: int


class Figures:
    """Answers questions about one run; made once, in n log n."""

    def __init__(self, run: Run, observations: Iterable[dict[str, Any]]) -> None:
        self._run = run
        self._observations = sorted(
            (seen for seen in observations if "time_ns" in seen), key=lambda seen: int(seen["time_ns"])
        )
        returned = [call for call in run.calls if call.return_ns is not None]
        self._calls = returned
        self._called = [call.call_ns for call in returned]
        self._lost = [call.call_ns for call in run.calls if call.return_ns is None]
        acked = [call for call in returned if call.outcome == "ok"]
        self._acks = sorted(call.return_ns or 0 for call in acked)
        self._write_acks = sorted(call.return_ns or 0 for call in acked if call.writes)
        first_fault_ns = run.faults[0]["start_ns"] if run.faults else run.load_end_ns
        self._calm = (run.start_ns, max(run.start_ns, first_fault_ns))

    def of_faults(self) -> list[FaultFigures]:
        """In the order of `run.faults`."""
        return [self._of_fault(place) for place in range(len(self._run.faults))]

    def stretch(self, start_ns: int, end_ns: int, *, overlapping: bool = False) -> Stretch:
        """Calls that lie wholly in [start_ns, end_ns], or those that overlap it; the rate by returns."""
        if end_ns <= start_ns and not overlapping:
            return Stretch(0.0, None, None, None, None, 0, 0)
        calls = self._within(start_ns, end_ns, overlapping)
        took = sorted(call.took_ns or 0 for call in calls if call.outcome == "ok")
        p50, p99, longest = (_ms(percentile(took, share)) if took else None for share in (0.5, 0.99, 1.0))
        length_s = max(end_ns - start_ns, 0) / 1e9
        rate = count_between(self._acks, start_ns, end_ns) / length_s if length_s else None
        unknown = sum(call.outcome == "unknown" for call in calls)
        return Stretch(
            round(length_s, 3),
            None if rate is None else round(rate, 1),
            p50,
            p99,
            longest,
            failed=sum(call.outcome == "fail" for call in calls),
            unknown=unknown + count_between(self._lost, start_ns, end_ns),
        )

    def _within(self, start_ns: int, end_ns: int, overlapping: bool) -> list[Call]:
        reach_ns = self._run.longest_ns if overlapping else 0
        first = bisect_left(self._called, start_ns - reach_ns)
        last = bisect_right(self._called, end_ns)
        if overlapping:
            return [call for call in self._calls[first:last] if (call.return_ns or 0) >= start_ns]
        return [call for call in self._calls[first:last] if (call.return_ns or 0) <= end_ns]

    def _of_fault(self, place: int) -> FaultFigures:
        fault = self._run.faults[place]
        start_ns, end_ns = fault["start_ns"], fault_end_ns(fault, self._run.load_end_ns)
        until_ns = self._until(place, end_ns)
        stretch_ns = int(STRETCH_S * 1e9)
        before = self.stretch(max(self._quiet_since(place), start_ns - stretch_ns), start_ns)
        outage = self._outage(start_ns, end_ns, until_ns)
        longest = max(
            self._gaps(start_ns, until_ns), key=lambda gap: gap[1] - gap[0], default=(start_ns, start_ns)
        )
        first_write_ns = self._first_write(start_ns, until_ns, outage)
        return FaultFigures(
            before,
            self.stretch(start_ns, end_ns, overlapping=True),
            self.stretch(end_ns, min(until_ns, end_ns + stretch_ns)),
            detect_ms=self._since(start_ns, self._detected(fault, until_ns)),
            elect_ms=self._since(start_ns, self._elected(start_ns, until_ns)),
            first_write_ms=self._since(start_ns, first_write_ns),
            full_rate_ms=self._since(start_ns, self._full_rate(before, start_ns, until_ns, outage)),
            unavailable_ms=_ms(longest[1] - longest[0]) if longest[1] > longest[0] else None,
            unavailable_from_ns=longest[0],
            until_ns=until_ns,
        )

    @staticmethod
    def _since(start_ns: int, at_ns: int | None) -> float | None:
        return None if at_ns is None else _ms(at_ns - start_ns)

    def _until(self, place: int, end_ns: int) -> int:
        later = (fault["start_ns"] for fault in self._run.faults[place + 1 :] if fault["start_ns"] >= end_ns)
        start_ns = int(self._run.faults[place]["start_ns"])
        return max(start_ns, min(next(later, self._run.load_end_ns), self._run.load_end_ns))

    def _quiet_since(self, place: int) -> int:
        """The end of every fault that started earlier; the start of the run for the first."""
        ends = [fault_end_ns(fault, self._run.load_end_ns) for fault in self._run.faults[:place]]
        return max(ends, default=self._run.start_ns)

    def _detected(self, fault: dict[str, Any], until_ns: int) -> int | None:
        """The consequence by which it counts as effective, or the loss of a connection to its target."""
        moments = [
            seen["time_ns"]
            for seen in self._observed(fault["start_ns"], until_ns)
            if seen["kind"] == "reset" and seen.get("component") in str(fault.get("target")).split(",")
        ]
        effect = fault.get("effect")
        if isinstance(effect, dict) and "time_ns" in effect:
            moments.append(effect["time_ns"])
        elif fault.get("detect_ms") is not None:
            moments.append(fault["start_ns"] + int(fault["detect_ms"] * 1e6))
        return min(moments, default=None)

    def _elected(self, start_ns: int, until_ns: int) -> int | None:
        """The first leader that was seen in a later term than any before the fault."""
        term = max((term for at_ns, term in self._terms() if at_ns < start_ns), default=0)
        later = [at_ns for at_ns, seen in self._terms() if start_ns <= at_ns <= until_ns and seen > term]
        return min(later, default=None)

    def _terms(self) -> list[tuple[int, int]]:
        return [
            (seen["time_ns"], seen["term"])
            for seen in self._observations
            if seen["kind"] == "term" or (seen["kind"] == "role" and seen["role"] == "leader")
        ]

    def _observed(self, start_ns: int, end_ns: int) -> list[dict[str, Any]]:
        return [seen for seen in self._observations if start_ns <= seen["time_ns"] <= end_ns]

    def _gaps(self, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """The times between acknowledged writes, from `start_ns` to `end_ns`."""
        first = bisect_left(self._write_acks, start_ns)
        last = bisect_right(self._write_acks, end_ns)
        moments = [start_ns, *self._write_acks[first:last], end_ns]
        return list(pairwise(moments))

    def _outage(self, start_ns: int, end_ns: int, until_ns: int) -> tuple[int, int] | None:
        """The first pause of writes that began within the fault and stands out.

        A member that is being killed still answers for a moment, so the first write after the start says
        nothing: what counts is the end of this pause."""
        shortest_ns = _OUTAGE * self._usual_gap_ns()
        began = (gap for gap in self._gaps(start_ns, until_ns) if gap[0] <= end_ns)
        return next((gap for gap in began if gap[1] - gap[0] > shortest_ns), None)

    def _usual_gap_ns(self) -> int:
        """The longest pause between two acknowledged writes before the first fault."""
        return max((end - start for start, end in self._gaps(*self._calm)[1:-1]), default=0)

    def _first_write(self, start_ns: int, until_ns: int, outage: tuple[int, int] | None) -> int | None:
        if outage is not None:
            return outage[1] if outage[1] < until_ns else None
        place = bisect_left(self._write_acks, start_ns)
        found = self._write_acks[place] if place < len(self._write_acks) else None
        return found if found is not None and found <= until_ns else None

    def _full_rate(
        self, before: Stretch, start_ns: int, until_ns: int, outage: tuple[int, int] | None
    ) -> int | None:
        """The start of the first second with FULL_RATE of the rate before, not before the outage ended."""
        rate = before.rate if before.length_s >= _SHORTEST_S else self.stretch(*self._calm).rate
        if not rate:
            return None
        window_ns = int(FULL_RATE_WINDOW_S * 1e9)
        from_ns = start_ns if outage is None else outage[1]
        first = bisect_left(self._acks, from_ns)
        last = bisect_right(self._acks, until_ns - window_ns)
        for at_ns in (from_ns, *self._acks[first:last]):
            if at_ns + window_ns > until_ns:
                break
            if count_between(self._acks, at_ns, at_ns + window_ns) >= FULL_RATE * rate * FULL_RATE_WINDOW_S:
                return at_ns
        return None


def _ms(length_ns: int) -> float:
    return round(length_ns / 1e6, 3)
