"""The watch promises, judged against the log of the revision-order checker.

W1 filter: only keys that were asked for. W2 ordered: revisions never go back. W3 unique: no event twice.
W4 atomic: all events of a revision together. W5 bookmarkable: a progress mark at R comes after every
event up to R. W7 reliable: no event of the watched range is missing between the first and the last.
W8 prev_kv is the version before. W10 nothing before the asked revision.
"""

from __future__ import annotations

from typing import Any

from chaos.checkers.history import History, Watch
from chaos.checkers.model import Model
from chaos.checkers.revision_order import Log
from chaos.checkers.verdict import Verdict


def check_watches(history: History, log: Log, verdict: Verdict) -> None:
    """Judge every watch but the one that the log was taken from (its order is judged as well)."""
    previous = _previous_versions(log)
    for watch in history.watches.values():
        verdict.count("watches")
        verdict.count("watch events", len(watch.events))
        _check_order(watch, verdict)
        if not watch.log:
            _check_against_log(watch, log, verdict)
        _check_previous(watch, previous, verdict)


def _previous_versions(log: Log) -> dict[tuple[int, str], list[Any] | None]:
    """(revision, key) -> the key-value before that change."""
    model, found = Model(), {}
    for revision in sorted(log):
        for change in log[revision]:
            found[revision, change.key] = model.get(change.key)
        model.apply(revision, log[revision])
    return found


def _check_order(watch: Watch, verdict: Verdict) -> None:
    last, marked = 0, 0
    seen: set[tuple[int, str]] = set()
    closed: set[int] = set()
    for event in watch.events:
        revision = event["revision"]
        if event["kind"] == "progress":
            marked = max(marked, revision)
            continue
        name = f"watch {watch.watch}: {event['kind']} {event['key']} at revision {revision}"
        if revision < last:
            verdict.add("W2", f"{name} came after revision {last}", event)
        if revision in closed:
            verdict.add("W4", f"{name} came apart from the others of its revision", event)
        if revision <= marked:
            verdict.add("W5", f"{name} came after the progress mark {marked}", event)
        if (revision, event["key"]) in seen:
            verdict.add("W3", f"{name} came twice", event)
        if revision < watch.start_revision:
            verdict.add("W10", f"{name} lies before the asked revision {watch.start_revision}", event)
        if not watch.covers(event["key"]):
            verdict.add("W1", f"{name} was not asked for", event)
        seen.add((revision, event["key"]))
        if revision != last and last:
            closed.add(last)
        last = revision


def _check_against_log(watch: Watch, log: Log, verdict: Verdict) -> None:
    """Everything between the asked revision and the last one known to be delivered must have come."""
    reached = max((event["revision"] for event in watch.events), default=0)
    came = {
        (event["revision"], event["key"]): event.get("value") if event["kind"] == "put" else None
        for event in watch.events
        if event["kind"] in ("put", "delete")
    }
    for revision in sorted(log):
        if not watch.start_revision <= revision <= reached:
            continue
        for change in log[revision]:
            if not watch.covers(change.key):
                continue
            name = f"watch {watch.watch}: {change.key} at revision {revision}"
            if (revision, change.key) not in came:
                verdict.add("W7", f"{name} never came, though revision {reached} did")
            elif came.pop((revision, change.key)) != change.value:
                verdict.add("W7", f"{name} came with another value than the log's")
    for revision, key in came:
        if revision not in log or all(change.key != key for change in log[revision]):
            verdict.add("W7", f"watch {watch.watch}: {key} at revision {revision} came and is not in the log")


def _check_previous(
    watch: Watch, previous: dict[tuple[int, str], list[Any] | None], verdict: Verdict
) -> None:
    for event in watch.events:
        place = (event["revision"], event.get("key", ""))
        if "prev" in event and place in previous and event["prev"] != previous[place]:
            verdict.add(
                "W8",
                f"watch {watch.watch}: {event['key']} at revision {event['revision']} came with the previous "
                f"version {event['prev']}, the log gives {previous[place]}",
                event,
            )
