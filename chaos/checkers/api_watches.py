"""Watches through API servers, held against the store's log: W2, W3, W7 across servers.

A watch of a prefix that began at revision R must have got, in order and once each, every change of it from
R + 1 on up to the last one that came, on however many servers it was resumed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from chaos.checkers.history import History
from chaos.checkers.verdict import Verdict


def check_api_watches(history: History, verdict: Verdict) -> None:
    """Judge the `api-watch` and `api-event` observations; needs the complete watch."""
    if history.log_watch is None:
        return
    log = [event for event in history.log_watch.events if event["kind"] in ("put", "delete")]
    came: dict[int, list[dict[str, Any]]] = {}
    for seen in history.observations:
        if seen["kind"] == "api-event":
            came.setdefault(seen["watch"], []).append(seen)
    for watch in history.observations:
        if watch["kind"] == "api-watch":
            events = came.get(watch["watch"], [])
            verdict.count("API watches")
            verdict.count("API watch events", len(events))
            _check(watch, events, log, verdict)


def _check(
    watch: dict[str, Any], events: list[dict[str, Any]], log: list[dict[str, Any]], verdict: Verdict
) -> None:
    name = f"API watch {watch['watch']}"
    got = [(event["revision"], event["event"], event["key"]) for event in events]
    for before, after in pairwise(got):
        if after[0] < before[0]:
            verdict.add("W2", f"{name}: {_words(after)} came after revision {before[0]}")
    if len(set(got)) < len(got):
        twice = next(one for one in got if got.count(one) > 1)
        verdict.add("W3", f"{name}: {_words(twice)} came twice")
    last = max((revision for revision, _, _ in got), default=0)
    wanted = {
        (event["revision"], event["kind"], event["key"])
        for event in log
        if watch["revision"] < event["revision"] <= last and event["key"].startswith(watch["keys"])
    }
    for one in sorted(wanted - set(got)):
        verdict.add("W7", f"{name}: {_words(one)} never came, though revision {last} did")
    for one in sorted(set(got) - wanted):
        verdict.add("W7", f"{name}: {_words(one)} came and is not in the log, or is from before the watch")


def _words(one: tuple[int, str, str]) -> str:
    revision, kind, key = one
    return f"{kind} {key} at revision {revision}"
