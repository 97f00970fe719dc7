"""Watches of the API against the log: A2. Observations of kind `seen` tell, in order, what a client of the
API was shown of one resource: a whole list (`replace`), an event (`apply`), or that there is nothing more up
to a resourceVersion (`progress`)."""

from __future__ import annotations

from typing import Any

from chaos.checkers.history import History
from chaos.checkers.verdict import Verdict

Json = dict[str, Any]
Version = tuple[int, str, bool]  # revision, key, whether the object is there after it


def check_shown(history: History, verdict: Verdict) -> None:
    """Judge every recorded watch of the API."""
    by_watch: dict[str, list[Json]] = {}
    for record in history.observations:
        if record["kind"] == "seen":
            by_watch.setdefault(record["watch"], []).append(record)
    for name, records in by_watch.items():
        _Reader(name, _versions(history, records[0]["prefix"]), verdict).read(records)


def _versions(history: History, prefix: str) -> list[Version]:
    watch = history.log_watch
    events = () if watch is None else watch.events
    return [
        (event["revision"], event["key"], event["kind"] == "put")
        for event in events
        if event["kind"] in ("put", "delete") and event["key"].startswith(prefix)
    ]


class _Reader:
    """Goes through the log and what was shown side by side. `_next`: the first change not yet shown."""

    def __init__(self, name: str, log: list[Version], verdict: Verdict) -> None:
        self._name, self._log, self._verdict = name, log, verdict
        self._next = 0
        self._state: dict[str, int] = {}

    def read(self, records: list[Json]) -> None:
        for record in records:
            self._verdict.count("shown by the API")
            getattr(self, "_" + record["change"])(record)

    def _replace(self, record: Json) -> None:
        """The list must be the state at its resourceVersion."""
        self._next, self._state = 0, {}
        while self._next < len(self._log) and self._log[self._next][0] <= record["revision"]:
            self._step()
        if record["objects"] != self._state:
            wrong = sorted(set(record["objects"].items()) ^ set(self._state.items()))[:3]
            self._violate(record, f"a list at {record['revision']} is not what the log has there: {wrong}")

    def _apply(self, record: Json) -> None:
        shown = (record["revision"], record["key"], record["present"])
        if self._next < len(self._log) and self._log[self._next] == shown:
            self._step()
            return
        if shown in self._log[: self._next]:
            self._violate(record, f"{shown[1]} at revision {shown[0]} was shown again, or late")
            return
        if shown not in self._log[self._next :]:
            self._violate(record, f"{shown[1]} at revision {shown[0]} was shown and is not in the log")
            return
        missed = self._log[self._next]
        self._violate(record, f"{missed[1]} at revision {missed[0]} was never shown, though {shown[0]} was")
        while self._log[self._next] != shown:
            self._step()
        self._step()

    def _progress(self, record: Json) -> None:
        if self._next < len(self._log) and self._log[self._next][0] <= record["revision"]:
            missed, reached = self._log[self._next], record["revision"]
            what = f"{missed[1]} at revision {missed[0]} was never shown, though {reached} was reached"
            self._violate(record, what)
            while self._next < len(self._log) and self._log[self._next][0] <= record["revision"]:
                self._step()

    def _step(self) -> None:
        revision, key, present = self._log[self._next]
        self._next += 1
        if present:
            self._state[key] = revision
        else:
            self._state.pop(key, None)

    def _violate(self, record: Json, sentence: str) -> None:
        self._verdict.add("A2", f"watch {self._name}: {sentence}", record)
