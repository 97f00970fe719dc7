"""How long this process did nothing for its clients: late turns of its loop, pauses of the collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio

from raftkube.clock import collector_seconds
from raftkube.store.raft.counters import DURATION_BUCKETS_S, Histogram, SlowNotes

_BETWEEN_S: Final = 0.25
# Collections of the youngest generation take microseconds, those of the oldest up to a second.
GC_BUCKETS_S: Final = (0.0001, 0.0005, *DURATION_BUCKETS_S[:11])


class Runtime:
    """Measures while its `run` is running; several members of one process measure the same process."""

    def __init__(self, lag_warn_s: float) -> None:
        self.loop_lag_s = Histogram(DURATION_BUCKETS_S)
        self.gc_pause_s = Histogram(GC_BUCKETS_S)
        self._late = SlowNotes("event_loop_late", lag_warn_s)
        self._collecting_since = 0.0

    async def run(self) -> None:
        """Look at the loop four times a second, until cancelled."""
        with self._collections():
            while True:
                planned = trio.current_time() + _BETWEEN_S
                await trio.sleep_until(planned)
                lag_s = trio.current_time() - planned
                self.loop_lag_s.observe(lag_s)
                if lag_s > self._late.expected_s:
                    self._late.note(planned + lag_s, lag_s)

    @contextmanager
    def _collections(self) -> Iterator[None]:
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, Any]) -> None:
        """Called by the collector, in whatever thread it runs."""
        if phase == "start":
            self._collecting_since = collector_seconds()
        else:
            self.gc_pause_s.observe(collector_seconds() - self._collecting_since)
