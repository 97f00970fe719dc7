"""A recorded history, read back: operations, watch events, faults, observations.

One JSON object a line; the first is the header. Times are one monotonic clock of the harness in ns.
Operations carry `outcome`: ok (answered), fail (definitely not done), unknown (may have been done).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

FORMAT: Final = 1


class Change(NamedTuple):
    """One key's change at a revision; value None is a delete."""

    key: str
    value: str | None


@dataclass(slots=True)
class Watch:
    """One watch: what was asked, and what came, in order of arrival."""

    watch: int
    key: str
    range_end: str
    start_revision: int
    log: bool = False  # the harness' own complete watch, from which the log is taken
    events: list[dict[str, Any]] = field(default_factory=list)

    def covers(self, key: str) -> bool:
        """Whether `key` lies in what was asked (range_end "" is the single key, "\\0" all from key on)."""
        if not self.range_end:
            return key == self.key
        return self.key <= key and (self.range_end == "\0" or key < self.range_end)


@dataclass(slots=True)
class History:
    """Everything that was recorded."""

    header: dict[str, Any]
    operations: list[dict[str, Any]] = field(default_factory=list)
    watches: dict[int, Watch] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    observations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def log_watch(self) -> Watch | None:
        """The watch since revision 1 from which the log is taken."""
        return next((watch for watch in self.watches.values() if watch.log), None)


class HistoryError(Exception):
    """Not a history that this version can judge: one sentence that says where and why."""


def read_history(lines: Iterable[bytes]) -> History:
    """Raises HistoryError naming the line."""
    history: History | None = None
    for number, line in enumerate(lines, 1):
        try:
            record = orjson.loads(line)
            if history is None:
                history = _header(record)
            else:
                _add(history, record)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise HistoryError(f"line {number}: {type(error).__name__}: {error}") from error
    if history is None:
        raise HistoryError("line 1: the history is empty")
    return history


def history_of(records: Iterable[dict[str, Any]]) -> History:
    """The same from records in memory. Raises HistoryError naming the record."""
    history: History | None = None
    for number, record in enumerate(records, 1):
        try:
            if history is None:
                history = _header(record)
            else:
                _add(history, record)
        except (KeyError, TypeError, AttributeError) as error:
            raise HistoryError(f"record {number}: {type(error).__name__}: {error}") from error
    if history is None:
        raise HistoryError("record 1: the history is empty")
    return history


def _header(record: dict[str, Any]) -> History:
    if record.get("format") != FORMAT:
        raise HistoryError(f"line 1: format is {record.get('format')!r}; this version reads {FORMAT}")
    return History(record)


def _add(history: History, record: dict[str, Any]) -> None:
    kind = record["type"]
    if kind == "op":
        history.operations.append(record)
    elif kind == "event":
        history.watches[record["watch"]].events.append(record)
    elif kind == "watch":
        history.watches[record["watch"]] = Watch(
            record["watch"],
            record["key"],
            record["range_end"],
            record["start_revision"],
            record.get("log", False),
        )
    elif kind == "fault":
        history.faults.append(record)
    elif kind == "observe":
        history.observations.append(record)
    else:
        raise HistoryError(f"type {kind!r} is not known")
