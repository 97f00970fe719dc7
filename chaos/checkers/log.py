"""The log: what changed at each revision, taken from the harness' complete watch since revision 1."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Any

from chaos.checkers.history import Change, History
from chaos.checkers.verdict import Verdict

# revision -> its changes, in order of arrival. Empty: keys that are not the workload's changed.
Log = dict[int, list[Change]]


def read_log(history: History, verdict: Verdict) -> Log:
    """Raises nothing: a log that cannot be judged is empty, and the verdict says why it is unknown."""
    watch, barrier = history.log_watch, history.barrier
    if watch is None or barrier is None:
        missing = "complete watch" if watch is None else "barrier write"
        verdict.unknown_because.append(f"the history has no {missing}")
        return {}
    log = _changes(watch.events, history.header.get("prefix", ""))
    last = max(log, default=1)
    if last < barrier["revision"]:
        verdict.unknown_because.append(
            f"the complete watch ends at revision {last}, before the barrier's {barrier['revision']}"
        )
        return {}
    missing_revisions = [revision for revision in range(2, last) if revision not in log]
    if missing_revisions:
        verdict.add(
            "S3",
            f"{len(missing_revisions)} revisions are missing from the complete watch, "
            f"the first is {missing_revisions[0]}",
        )
    return log


def _changes(events: list[dict[str, Any]], prefix: str) -> Log:
    """Keys outside the workload's prefix belong to others (the control plane): they take revisions."""
    log: Log = {}
    for event in events:
        kind = event["kind"]
        if kind != "progress":
            changes = log.setdefault(event["revision"], [])
            key = event["key"]
            if key.startswith(prefix):
                change = Change(key, event["value"] if kind == "put" else None)
                if not changes or change not in changes:  # delivered twice is the watch's fault
                    changes.append(change)
    return log


class KnownTimes:
    """When, at the latest, each revision was there: somebody had been answered or told of it, or of a
    later one."""

    def __init__(self, history: History) -> None:
        earliest: dict[int, int] = {}
        for operation in history.operations:
            if operation["outcome"] == "ok":
                _lower(earliest, operation["revision"], operation["return_ns"])
        for watch in history.watches.values():
            for event in watch.events:
                if "recv_ns" in event:
                    _lower(earliest, event["revision"], event["recv_ns"])
        self._revisions = sorted(earliest)
        falling = accumulate((earliest[revision] for revision in reversed(self._revisions)), min)
        self._soonest = list(falling)[::-1]

    def latest_ns(self, revision: int) -> int | None:
        """The time by which `revision` had happened; None if nobody saw it or a later one."""
        at = bisect_left(self._revisions, revision)
        return self._soonest[at] if at < len(self._soonest) else None


def _lower(earliest: dict[int, int], revision: int, time_ns: int) -> None:
    known = earliest.get(revision)
    if known is None or time_ns < known:
        earliest[revision] = time_ns
