"""The first violation and what happened around it: operations that overlap it or touch the same keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from chaos.checkers.history import History
from chaos.checkers.verdict import Violation
from chaos.report import words
from chaos.report.calls import Run, fault_end_ns

Record = dict[str, Any]

SAME_KEY_EACH_SIDE: Final = 5
OVERLAPPING_MAX: Final = 10
EVENTS_EACH_SIDE: Final = 3


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A record of the history, and why it stands here: violation, same key, same revision, overlaps,
    same watch."""

    record: Record
    why: str

    @property
    def start_ns(self) -> int:
        return _moment(self.record) or 0

    @property
    def end_ns(self) -> int:
        """Of an operation that never came back: its call."""
        end_ns = self.record.get("return_ns")
        return self.start_ns if end_ns is None else int(end_ns)


def neighbours(history: History, violation: Violation) -> list[Neighbour]:
    """In the order of their starts; the violation's own records first among equals. [] if it names none."""
    own = [record for record in violation.operations if _moment(record) is not None]
    if not own:
        return []
    found = {_identity(record): Neighbour(record, "violation") for record in own}
    for record in own:
        for other, why in _around(history, record):
            found.setdefault(_identity(other), Neighbour(other, why))
    return sorted(found.values(), key=lambda item: (item.start_ns, item.why != "violation"))


def keys_of(record: Record) -> set[str]:
    """The keys that an operation or event names; a range by its beginning only."""
    request = record.get("request", record)
    items = [request, *request.get("compares", ()), *request.get("success", ()), *request.get("failure", ())]
    named = [*request.get("puts", ()), *request.get("deletes", ())]  # of an API server's write: keys alone
    return {key for key in named if isinstance(key, str)} | {
        item["key"] for item in items if "key" in item and not item.get("range_end")
    }


def explanation(violation: Violation, run: Run) -> str:
    """One sentence: when, during or after which fault, and what."""
    moments = [moment for moment in map(_moment, violation.operations) if moment is not None]
    if not moments:
        return violation.sentence
    at_ns = min(moments)
    return f"{run.seconds(at_ns):.3f} s into the run{_fault_words(run, at_ns)}: {violation.sentence}"


def _fault_words(run: Run, at_ns: int) -> str:
    """The fault that was on, or the nearest one."""
    nearest, distance_ns = 0, None
    for number, fault in enumerate(run.faults, 1):
        away_ns = max(fault["start_ns"] - at_ns, at_ns - fault_end_ns(fault, run.end_ns), 0)
        if distance_ns is None or away_ns < distance_ns:
            nearest, distance_ns = number, away_ns
    if distance_ns is None:
        return ", which had no fault"
    fault = run.faults[nearest - 1]
    where = f"fault {nearest} ({words.fault(fault)})"
    if distance_ns == 0:
        return f", {(at_ns - fault['start_ns']) / 1e9:.3f} s after {where} began"
    order = "before" if fault["start_ns"] > at_ns else "after the end of"
    return f", {distance_ns / 1e9:.3f} s {order} {where}"


def _around(history: History, record: Record) -> list[tuple[Record, str]]:
    start_ns, end_ns = _span(record)
    keys = keys_of(record)
    same = [op for op in history.operations if op["kind"] != "hash" and keys & keys_of(op)]
    found = [(op, "same key") for op in _nearest(same, start_ns, end_ns)]
    found += [(other, "same revision") for other in _same_revision(history, record)]
    known = {_identity(record), *(_identity(other) for other, _ in found)}
    overlapping = [
        op for op in history.operations if _overlaps(op, start_ns, end_ns) and _identity(op) not in known
    ]
    overlapping.sort(key=lambda op: abs(op["call_ns"] - start_ns))
    found += [(op, "overlaps") for op in overlapping[:OVERLAPPING_MAX]]
    if record.get("type") == "event":
        found += [(event, "same watch") for event in _watch_events(history, record)]
    return found


def _same_revision(history: History, record: Record) -> list[Record]:
    """Who else was given this revision, and what the complete watch has there; reads only see one."""
    revision = record.get("revision")
    if revision is None or record.get("kind") not in ("put", "delete", "txn"):
        return []
    log = history.log_watch
    events = [event for event in (log.events if log else ()) if event["revision"] == revision]
    writes = [op for op in history.operations if op["kind"] in ("put", "delete", "txn")]
    given = [op for op in writes if op["outcome"] == "ok" and op.get("revision") == revision]
    return [*given[:SAME_KEY_EACH_SIDE], *(e for e in events[:SAME_KEY_EACH_SIDE] if "recv_ns" in e)]


def _nearest(operations: list[Record], start_ns: int, end_ns: int) -> list[Record]:
    """Those that overlap, and some that ended before or began after."""
    before = [op for op in operations if _span(op)[1] < start_ns]
    after = [op for op in operations if op["call_ns"] > end_ns]
    within = [op for op in operations if _overlaps(op, start_ns, end_ns)]
    before.sort(key=lambda op: _span(op)[1])
    after.sort(key=lambda op: int(op["call_ns"]))
    return [*before[-SAME_KEY_EACH_SIDE:], *within[:OVERLAPPING_MAX], *after[:SAME_KEY_EACH_SIDE]]


def _watch_events(history: History, event: Record) -> list[Record]:
    watch = history.watches.get(event["watch"])
    events = watch.events if watch else []
    place = next((number for number, each in enumerate(events) if each is event or each == event), None)
    if place is None:
        return []
    near = events[max(0, place - EVENTS_EACH_SIDE) : place + EVENTS_EACH_SIDE + 1]
    return [each for each in near if each != event and "recv_ns" in each]


def _overlaps(operation: Record, start_ns: int, end_ns: int) -> bool:
    first_ns, last_ns = _span(operation)
    return operation["kind"] != "hash" and first_ns <= end_ns and last_ns >= start_ns


def _span(record: Record) -> tuple[int, int]:
    start_ns = _moment(record) or 0
    end_ns = record.get("return_ns")
    return start_ns, start_ns if end_ns is None else int(end_ns)


def _moment(record: Record) -> int | None:
    """An operation's call, an event's arrival, an observation's time."""
    moments = (record.get(name) for name in ("call_ns", "recv_ns", "time_ns"))
    return next((int(moment) for moment in moments if moment is not None), None)


def _identity(record: Record) -> tuple[Any, ...]:
    if record.get("type") == "event":
        return ("event", record["watch"], record["revision"], record.get("key"), record.get("recv_ns"))
    if record.get("type") == "observe":
        return ("observe", record["kind"], record.get("member"), record.get("term"), record["time_ns"])
    return ("op", record.get("client"), record.get("id"), record.get("call_ns"))
