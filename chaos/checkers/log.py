"""The log: what changed at each revision, taken from the harness' complete watch since revision 1."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Final

from chaos.checkers.history import Change, History
from chaos.checkers.verdict import Verdict

_NEVER: Final = 1 << 63

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


def log_so_far(history: History) -> Log:
    """What the complete watch has, wherever it ends."""
    watch = history.log_watch
    return _changes(watch.events, history.header.get("prefix", "")) if watch else {}


def _changes(events: list[dict[str, Any]], prefix: str) -> Log:
    """Keys outside the workload's prefix belong to others (the control plane): they take revisions."""
    log: Log = {}
    new = tuple.__new__  # a million times: without detours
    for event in events:
        kind, revision = event["kind"], event["revision"]
        if kind == "progress":
            continue
        changes = log.get(revision)
        if changes is None:
            changes = log[revision] = []
        key = event["key"]
        if key.startswith(prefix):
            change = new(Change, (key, event["value"] if kind == "put" else None))
            if not changes or change not in changes:  # delivered twice is the watch's fault
                changes.append(change)
    return log


class KnownTimes:
    """When, at the latest, each revision was there: somebody had been answered or told of it, or of a
    later one."""

    def __init__(self, history: History, last: int) -> None:
        """For revisions up to `last`."""
        earliest = [_NEVER] * (last + 1)
        for operation in history.operations:
            if operation["outcome"] == "ok":
                revision, time_ns = operation["revision"], operation["return_ns"]
                if revision <= last and time_ns < earliest[revision]:
                    earliest[revision] = time_ns
        for watch in history.watches.values():
            for event in watch.events:
                revision, time_ns = event["revision"], event.get("recv_ns", _NEVER)
                if revision <= last and time_ns < earliest[revision]:
                    earliest[revision] = time_ns
        self._soonest = list(accumulate(reversed(earliest), min))
        self._soonest.reverse()

    def latest_ns(self, revision: int) -> int | None:
        """The time by which `revision` had happened; None if nobody saw it or a later one."""
        time_ns = self._soonest[revision]
        return None if time_ns == _NEVER else time_ns
