"""A recorded run as the report sees it: clients' calls, faults in order, when it began and ended."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from chaos.checkers.history import History

# Everything else asks the store to change something.
_READS: Final = frozenset(("get", "range", "hash", "status"))


class Call(NamedTuple):
    """One operation of a client; `return_ns` None: it never came back. Outcomes are ok, fail, unknown."""

    client: int
    call_ns: int
    return_ns: int | None
    outcome: str
    writes: bool

    @property
    def took_ns(self) -> int | None:
        return None if self.return_ns is None else self.return_ns - self.call_ns


@dataclass(frozen=True, slots=True)
class Run:
    """`calls` in the order of their calls, without what the harness itself asked at the end (`harness`);
    `faults` in the order of their starts. Times in ns of the history's clock."""

    calls: list[Call]
    harness: list[Call]
    faults: list[dict[str, Any]]
    start_ns: int
    load_end_ns: int
    end_ns: int
    longest_ns: int  # the longest of the calls that came back
    lost: list[Call]  # those of `calls` that never did

    def between(self, start_ns: int, end_ns: int) -> list[Call]:
        """The calls that overlap [start_ns, end_ns], in order; one that never came back lasts for ever."""
        last = bisect_right(self.calls, end_ns, key=_called)
        near = bisect_left(self.calls, start_ns - self.longest_ns, hi=last, key=_called)
        near_by = [
            call for call in self.calls[near:last] if call.return_ns is None or call.return_ns >= start_ns
        ]
        return [call for call in self.lost if call.call_ns < start_ns - self.longest_ns] + near_by

    @property
    def clients(self) -> list[int]:
        return sorted({call.client for call in self.calls})

    def seconds(self, time_ns: int) -> float:
        """Since the start of the run."""
        return (time_ns - self.start_ns) / 1e9


def read_run(history: History, faults: list[dict[str, Any]]) -> Run:
    """`faults` are the history's, or the same with what became of them."""
    calls: list[Call] = []
    harness: list[Call] = []
    for operation in history.operations:
        (harness if _is_harness(operation) else calls).append(_call(operation))
    calls.sort(key=lambda call: call.call_ns)
    in_order = sorted(faults, key=lambda fault: fault["start_ns"])
    moments = [*_moments(calls), *_moments(harness), *(fault["start_ns"] for fault in in_order)]
    moments += [fault["end_ns"] for fault in in_order if fault.get("end_ns") is not None]
    moments += [seen["time_ns"] for seen in history.observations if "time_ns" in seen]
    began_ns = history.header.get("started_ns")
    start_ns = int(began_ns if began_ns is not None else min(moments, default=0))
    end_ns = max(moments, default=start_ns)
    load_end_ns = max(_moments(calls), default=end_ns)
    longest_ns = max((call.took_ns or 0 for call in calls), default=0)
    lost = [call for call in calls if call.return_ns is None]
    end_ns = max(end_ns, start_ns + 1)
    return Run(calls, harness, in_order, start_ns, load_end_ns, end_ns, longest_ns, lost)


def fault_end_ns(fault: dict[str, Any], otherwise_ns: int) -> int:
    """When a fault ended; one that was never ended lasts until `otherwise_ns`."""
    end_ns = fault.get("end_ns")
    return int(otherwise_ns if end_ns is None else max(end_ns, fault["start_ns"]))


def _called(call: Call) -> int:
    return call.call_ns


def _is_harness(operation: dict[str, Any]) -> bool:
    return bool(operation.get("barrier") or operation.get("final") or operation["kind"] == "hash")


def _call(operation: dict[str, Any]) -> Call:
    return Call(
        operation["client"],
        operation["call_ns"],
        operation.get("return_ns"),
        operation["outcome"],
        operation["kind"] not in _READS,
    )


def _moments(calls: list[Call]) -> list[int]:
    return [call.call_ns if call.return_ns is None else call.return_ns for call in calls] + [
        call.call_ns for call in calls[:1]
    ]
