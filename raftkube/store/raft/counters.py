"""What one member counts of its own work, and the notes it makes of what took long.

Counting is an addition where something happens; names, types and help texts are given when somebody asks
(`raftkube.store.server.metrics`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import structlog

log = structlog.get_logger(__name__)

# etcd's buckets of durations (server/storage/wal/metrics.go): 1 ms, doubled up to 8.192 s.
DURATION_BUCKETS_S: Final = tuple(0.001 * 2**power for power in range(14))
OPERATIONS_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_NOTE_EVERY_S: Final = 1.0


class Histogram:
    """Counts by upper bound. `counts` has one more, for what lies above the last bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count `value` in the first bucket whose bound is not below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def total(self) -> int:
        """How many were observed."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """(bound, observations at or below it); the last bound is infinity."""
        rows, seen = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            rows.append((bound, seen))
        return rows


class SlowNotes:
    """Warnings of one kind of slowness, at most one a second; how many were left out stands in the next."""

    def __init__(self, event: str, expected_s: float) -> None:
        self.expected_s = expected_s
        self.count = 0
        self._event = event
        self._next = float("-inf")
        self._suppressed = 0

    def note(self, now: float, took_s: float, **fields: Any) -> None:
        """Something took `took_s`, longer than expected."""
        self.count += 1
        if now < self._next:
            self._suppressed += 1
            return
        suppressed, self._suppressed, self._next = self._suppressed, 0, now + _NOTE_EVERY_S
        log.warning(
            self._event,
            took_s=round(took_s, 6),
            expected_s=self.expected_s,
            suppressed=suppressed,
            **fields,
        )


class RaftCounters(NamedTuple):
    """A member's counts since its start; durations are in seconds, `peers_…` by peer."""

    leader_changes: int
    late_heartbeats: int
    proposals_failed: int
    proposals_pending: int
    proposals_queued_bytes: int
    entry_operations: Histogram
    slow_applies: int
    read_rounds: int
    reads_failed: int
    reads_slow: int
    fsync_s: Histogram
    written_bytes: int
    snapshot_save_s: Histogram
    snapshots_installed: int
    peers_sent_bytes: Mapping[str, int]
    peers_received_bytes: Mapping[str, int]
    peers_send_failures: Mapping[str, int]
