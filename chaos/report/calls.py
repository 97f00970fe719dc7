"""A recorded run as the report sees it: clients' calls, faults in order, when it began and ended."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from chaos.checkers.history import History

# Everything else asks to change something. `get` and `list` are verbs of the Kubernetes API too.
_READS: Final = frozenset(("get", "range", "hash", "status", "list", "watch", "GET"))
# Who asks the API as a part of the control plane.
_SYSTEM: Final = "system:"


class Call(NamedTuple):
    """One operation of a client (its number, or who asked the API). `return_ns` None: it never came back.
    Outcomes are ok, fail, unknown. `until_ns` is the return, or else the client's next call, or else the end
    of the history."""

    client: str
    call_ns: int
    return_ns: int | None
    outcome: str
    writes: bool
    until_ns: int

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
    longest_ns: int  # of the calls, to their `until_ns`

    def between(self, start_ns: int, end_ns: int) -> list[Call]:
        """The calls that overlap [start_ns, end_ns], in order."""
        last = bisect_right(self.calls, end_ns, key=_called)
        near = bisect_left(self.calls, start_ns - self.longest_ns, hi=last, key=_called)
        return [call for call in self.calls[near:last] if call.until_ns >= start_ns]

    @property
    def clients(self) -> list[str]:
        return sorted({call.client for call in self.calls}, key=client_order)

    def seconds(self, time_ns: int) -> float:
        """Since the start of the run."""
        return (time_ns - self.start_ns) / 1e9


def read_run(history: History, faults: list[dict[str, Any]]) -> Run:
    """`faults` are the history's, or the same with what became of them."""
    calls: list[Call] = []
    harness: list[Call] = []
    for operation in filter(_is_call, history.operations):
        (harness if _is_harness(operation) else calls).append(_call(operation))
    calls.sort(key=_called)
    harness.sort(key=_called)
    in_order = sorted(faults, key=lambda fault: fault["start_ns"])
    moments = [*_moments(calls), *_moments(harness), *(fault["start_ns"] for fault in in_order)]
    moments += [fault["end_ns"] for fault in in_order if fault.get("end_ns") is not None]
    moments += [seen["time_ns"] for seen in history.observations if "time_ns" in seen]
    began_ns = history.header.get("started_ns")
    start_ns = int(began_ns if began_ns is not None else min(moments, default=0))
    end_ns = max(moments, default=start_ns)
    load_end_ns = max(_moments(calls), default=end_ns)
    end_ns = max(end_ns, start_ns + 1)
    calls, harness = _ended(calls, end_ns), _ended(harness, end_ns)
    longest_ns = max((call.until_ns - call.call_ns for call in calls), default=0)
    return Run(calls, harness, in_order, start_ns, load_end_ns, end_ns, longest_ns)


def fault_end_ns(fault: dict[str, Any], otherwise_ns: int) -> int:
    """When a fault ended; one that was never ended lasts until `otherwise_ns`."""
    end_ns = fault.get("end_ns")
    return int(otherwise_ns if end_ns is None else max(end_ns, fault["start_ns"]))


def _called(call: Call) -> int:
    return call.call_ns


def client_order(client: str) -> tuple[bool, int, str]:
    """Numbers by their size, then names."""
    return (False, int(client), "") if client.isdigit() else (True, 0, client)


def _is_call(operation: dict[str, Any]) -> bool:
    """Not what servers did to answer: their writes, and requests that are recorded as a user's already."""
    if operation["kind"] == "api":
        return str(operation["request"].get("user", "")).startswith(_SYSTEM)
    return bool(operation["kind"] != "write")


def _client(operation: dict[str, Any]) -> str:
    if operation["kind"] == "api":
        return str(operation["request"]["user"]).removeprefix(_SYSTEM)
    return str(operation["client"])


def _verb(operation: dict[str, Any]) -> str:
    request = operation["request"]
    return str(request.get("verb") or request.get("method") or operation["kind"])


def _is_harness(operation: dict[str, Any]) -> bool:
    return bool(operation.get("barrier") or operation.get("final") or operation["kind"] == "hash")


def _call(operation: dict[str, Any]) -> Call:
    return Call(
        _client(operation),
        operation["call_ns"],
        operation.get("return_ns"),
        operation["outcome"],
        _verb(operation) not in _READS,
        operation.get("return_ns") or operation["call_ns"],
    )


def _ended(calls: list[Call], end_ns: int) -> list[Call]:
    """With `until_ns` of those that never came back."""
    following: dict[str, int] = {}
    found = []
    for call in reversed(calls):
        lost = call.return_ns is None
        found.append(call._replace(until_ns=following.get(call.client, end_ns)) if lost else call)
        following[call.client] = call.call_ns
    return found[::-1]


def _moments(calls: list[Call]) -> list[int]:
    return [call.call_ns if call.return_ns is None else call.return_ns for call in calls] + [
        call.call_ns for call in calls[:1]
    ]
