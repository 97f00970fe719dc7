"""A recorded history, read back: operations, watch events, faults, observations.

One JSON object a line; the first is the header. Times are one monotonic clock of the harness in ns.
Operations carry `outcome`: ok (answered), fail (definitely not done), unknown (may have been done).
Key-values are [key, value, create revision, mod revision, version].
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

FORMAT: Final = 1
_OF_THE_API: Final = frozenset(("user", "api", "write"))  # operations of other shapes (control_loops)

Operation = dict[str, Any]


class Change(NamedTuple):
    """One key's change at a revision; value None is a delete."""

    key: str
    value: str | None


def covers(key: str, range_end: str, name: str) -> bool:
    """Whether `name` lies in [key, range_end); range_end "" is the single key, "\\0" all from key on."""
    if not range_end:
        return name == key
    return key <= name and (range_end == "\0" or name < range_end)


@dataclass(slots=True)
class Watch:
    """One watch: what was asked, and what came, in order of arrival."""

    watch: int
    key: str
    range_end: str
    start_revision: int
    log: bool = False  # the harness' own complete watch, from which the log is taken
    call_ns: int = 0
    resumes: int | None = None  # the watch that this one goes on from
    compacted: int | None = None  # it was refused: revisions below this one are gone
    events: list[dict[str, Any]] = field(default_factory=list)

    def covers(self, key: str) -> bool:
        """Whether `key` lies in what was asked."""
        return covers(self.key, self.range_end, key)

    @property
    def reached(self) -> int:
        """Everything up to this revision is said to have been delivered; 0: nothing was."""
        return max((event["revision"] for event in self.events), default=0)


@dataclass(slots=True)
class History:
    """Everything that was recorded."""

    header: dict[str, Any]
    operations: list[Operation] = field(default_factory=list)
    watches: dict[int, Watch] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    observations: list[dict[str, Any]] = field(default_factory=list)
    # The last write that the harness made after the load; what came before it is decided.
    barrier: Operation | None = None

    @property
    def log_watch(self) -> Watch | None:
        """The watch since revision 1 from which the log is taken."""
        return next((watch for watch in self.watches.values() if watch.log), None)


class HistoryError(Exception):
    """Not a history that this version can judge: one sentence that says where and why."""


@contextmanager
def no_collection() -> Iterator[None]:
    """Millions of records that all stay: the cycle collector would walk them again and again in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_history(lines: Iterable[bytes]) -> History:
    """Raises HistoryError naming the line."""
    with no_collection():
        return history_of(map(orjson.loads, lines))


def history_of(records: Iterable[dict[str, Any]]) -> History:
    """The same from records in memory. Raises HistoryError naming the record as a line."""
    history: History | None = None
    number = 0
    try:
        for record in records:
            number += 1
            if history is None:
                history = _header(record)
            elif record["type"] == "op":
                _check_operation(record)
                history.operations.append(record)
                if "barrier" in record:
                    _note_barrier(history, record)
            elif record["type"] == "event":
                _check_event(record)
                history.watches[record["watch"]].events.append(record)
            else:
                _add(history, record)
    except orjson.JSONDecodeError as error:
        raise HistoryError(f"line {number + 1}: {type(error).__name__}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise HistoryError(f"line {number}: {type(error).__name__}: {error}") from error
    if history is None:
        raise HistoryError("line 1: the history is empty")
    return history


def _header(record: dict[str, Any]) -> History:
    if record.get("format") != FORMAT:
        raise HistoryError(f"line 1: format is {record.get('format')!r}; this version reads {FORMAT}")
    return History(record)


def _check_operation(record: Operation) -> None:
    """Raises KeyError: a field that every operation has is missing."""
    record["client"], record["id"], record["request"]
    record["call_ns"]
    if record["outcome"] == "ok" and record["kind"] not in _OF_THE_API:
        record["return_ns"]
        record["response"], record["revision"]


def _note_barrier(history: History, record: Operation) -> None:
    """Of several that were acknowledged the newest counts."""
    newest = history.barrier
    if record["outcome"] == "ok" and (newest is None or record["revision"] > newest["revision"]):
        history.barrier = record


def _check_event(record: dict[str, Any]) -> None:
    """Raises KeyError: a field that every event has is missing."""
    record["revision"]
    if record["kind"] == "put":
        record["key"], record["value"]
    elif record["kind"] == "delete":
        record["key"]


def _add(history: History, record: dict[str, Any]) -> None:
    kind = record["type"]
    if kind == "watch":
        history.watches[record["watch"]] = Watch(
            record["watch"],
            record["key"],
            record["range_end"],
            record["start_revision"],
            record.get("log", False),
            record.get("call_ns", 0),
            record.get("resumes"),
        )
    elif kind == "fault":
        history.faults.append(record)
    elif kind == "observe":
        history.observations.append(record)
        if record["kind"] == "compacted":
            history.watches[record["watch"]].compacted = record.get("compact_revision", 0)
    else:
        raise HistoryError(f"type {kind!r} is not known")
