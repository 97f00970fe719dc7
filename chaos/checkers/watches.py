"""The eleven watch promises, judged against the versions of the replayed log.

W1 filter: only keys that were asked for. W2 ordered: revisions never go back. W3 unique: no event twice.
W4 atomic: all events of a revision together. W5 bookmarkable: a progress mark at R comes after every event
up to R. W6 resumable: a watch that goes on where another ended neither misses nor repeats anything at the
seam. W7 reliable: no event of the range is missing up to the last revision that is known to be delivered.
W8 prev_kv is the version before. W9 the create revision and version tell a created key from an updated one.
W10 nothing before the asked revision. W11 a start that is compacted is refused, and no other one is: what is
missing below a compaction is a gap that should have been an error.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

from chaos.checkers.history import History, Watch
from chaos.checkers.revision_order import Versions
from chaos.checkers.verdict import Verdict

Event = dict[str, Any]


def check_watches(history: History, versions: Versions, verdict: Verdict) -> None:
    """Judge every watch; of the one that the log was taken from all but what the log says."""
    _Watches(history, versions, verdict).run()


class _Watches:
    def __init__(self, history: History, versions: Versions, verdict: Verdict) -> None:
        self._history = history
        self._versions = versions
        self._verdict = verdict
        self._prefix = history.header.get("prefix", "")
        self._names = sorted(versions)
        self._revisions = {key: list(versions[key]) for key in self._names}
        self._last = max((each[-1] for each in self._revisions.values()), default=0)
        # What was compacted at, or may have been.
        self._compactions = sorted(
            op["request"]["revision"]
            for op in history.operations
            if op["kind"] == "compact" and op["outcome"] != "fail"
        )

    def run(self) -> None:
        for watch in self._history.watches.values():
            self._verdict.count("watches")
            self._verdict.count("watch events", len(watch.events))
            _check_order(watch, self._verdict)
            self._check_contents(watch)
            if not watch.log:
                self._check_missing(watch)
            if watch.resumes is not None:
                self._verdict.count("watches resumed")
                self._check_seam(watch, self._history.watches.get(watch.resumes, watch))
            if watch.compacted is not None:
                self._verdict.count("watches refused as compacted")
                self._check_refusal(watch, watch.compacted)

    # Each event.

    def _check_contents(self, watch: Watch) -> None:
        versions, prefix = self._versions, self._prefix
        for event in watch.events:
            kind = event["kind"]
            if kind == "progress":
                continue
            key, revision = event["key"], event["revision"]
            try:
                step = versions[key][revision]
            except KeyError:
                if revision <= self._last and key.startswith(prefix):
                    self._add("W7", watch, event, "came and is not in the log")
                continue
            before, after = step
            if (event["value"] if kind == "put" else None) != (after[1] if after else None):
                self._add("W7", watch, event, "came with another value than the log's")
            if "prev" in event and event["prev"] != before:
                self._add(
                    "W8",
                    watch,
                    event,
                    f"came with the previous version {event['prev']}, the log gives {before}",
                )
            if after and "create" in event and (event["create"], event["version"]) != (after[2], after[4]):
                told = "created" if event["create"] == revision else "updated"
                self._add(
                    "W9",
                    watch,
                    event,
                    f"came as {told} (create revision {event['create']}, version {event['version']}), "
                    f"the log gives {after[2]} and {after[4]}",
                )

    def _add(self, invariant: str, watch: Watch, event: Event, what: str) -> None:
        told = f"watch {watch.watch}: {event['kind']} {event['key']} at revision {event['revision']}"
        self._verdict.add(invariant, f"{told} {what}", event)

    # What should have come.

    def _check_missing(self, watch: Watch) -> None:
        """Everything between the asked revision and the last one known to be delivered must have come."""
        reached = watch.reached
        if not reached:
            return
        came = {(event["revision"], event["key"]) for event in watch.events if event["kind"] != "progress"}
        came_revisions = {revision for revision, _ in came}
        first = min(came_revisions, default=reached + 1)
        for key in self._covered(watch):
            revisions = self._revisions[key]
            start, end = bisect_left(revisions, watch.start_revision), bisect_right(revisions, reached)
            for revision in revisions[start:end]:
                if (revision, key) not in came:
                    invariant = self._gap(watch, revision, first, came_revisions)
                    told = f"watch {watch.watch}: {key} at revision {revision} never came, though revision "
                    self._verdict.add(invariant, f"{told}{reached} did")

    def _covered(self, watch: Watch) -> list[str]:
        if not watch.range_end:
            return [watch.key] if watch.key in self._versions else []
        end = len(self._names) if watch.range_end == "\0" else bisect_left(self._names, watch.range_end)
        return self._names[bisect_left(self._names, watch.key) : end]

    def _gap(self, watch: Watch, revision: int, first: int, came: set[int]) -> str:
        """The promise that a missing event breaks."""
        if revision in came:
            return "W4"
        if revision < first and self._compactions and revision < self._compactions[-1]:
            return "W11"
        return "W6" if watch.resumes is not None and revision < first else "W7"

    # Resumed and refused watches.

    def _check_seam(self, watch: Watch, before: Watch) -> None:
        """What `watch` goes on from; what it missed there is named by `_gap`."""
        had = {(event["revision"], event["key"]) for event in before.events if event["kind"] != "progress"}
        for event in watch.events:
            if event["kind"] != "progress" and (event["revision"], event["key"]) in had:
                self._add("W6", watch, event, f"came again after watch {before.watch} had it")

    def _check_refusal(self, watch: Watch, compact_revision: int) -> None:
        asked = max(watch.start_revision, watch.reached + 1)
        told = f"watch {watch.watch} was refused at revision {asked} as compacted at {compact_revision}"
        if compact_revision < asked:
            self._verdict.add("W11", f"{told}, which lies before it")
        elif self._history.header.get("compaction") == "clients" and (
            compact_revision not in self._compactions
        ):
            self._verdict.add("W11", f"{told}, and nobody compacted there")


def _check_order(watch: Watch, verdict: Verdict) -> None:
    """What can be said of a watch without the log."""
    last = marked = 0
    start, key_low, range_end = watch.start_revision, watch.key, watch.range_end
    unbounded = range_end == "\0"
    now: set[str] = set()  # the keys of revision `last`
    for index, event in enumerate(watch.events):
        revision = event["revision"]
        if event["kind"] == "progress":
            marked = max(marked, revision)
            continue
        key = event["key"]
        if revision > last:
            now = {key}
        elif revision == last and key not in now:
            now.add(key)
        else:
            _blame_order(watch, index, last, verdict)
        if revision <= marked or revision < start:
            _blame_early(watch, event, marked, verdict)
        if not (key >= key_low and (unbounded or key < range_end) if range_end else key == key_low):
            verdict.add("W1", f"{_told(watch, event)} was not asked for", event)
        last = revision


def _blame_order(watch: Watch, index: int, last: int, verdict: Verdict) -> None:
    """The event at `index` came behind revision `last` though it lies before it, or came already."""
    event = watch.events[index]
    revision, name = event["revision"], _told(watch, event)
    earlier = [each for each in watch.events[:index] if each["revision"] == revision and "key" in each]
    if revision < last:
        verdict.add("W2", f"{name} came after revision {last}", event)
        if earlier:
            verdict.add("W4", f"{name} came apart from the others of its revision", event)
    if any(each["key"] == event["key"] for each in earlier):
        verdict.add("W3", f"{name} came twice", event)


def _blame_early(watch: Watch, event: Event, marked: int, verdict: Verdict) -> None:
    revision, name = event["revision"], _told(watch, event)
    if revision <= marked:
        verdict.add("W5", f"{name} came after the progress mark {marked}", event)
    if revision < watch.start_revision:
        verdict.add("W10", f"{name} lies before the asked revision {watch.start_revision}", event)


def _told(watch: Watch, event: Event) -> str:
    return f"watch {watch.watch}: {event['kind']} {event['key']} at revision {event['revision']}"
