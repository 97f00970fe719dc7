"""How long deliveries took, as counts in buckets of ten microseconds, to be merged over processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

BUCKETS_PER_S: Final = 100_000


class Latencies:
    """Percentiles are the upper edge of their bucket."""

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}

    def add(self, now: float, dues: Iterable[float]) -> None:
        """What was due then has arrived now; both in seconds of one clock."""
        buckets = self.buckets
        for due in dues:
            bucket = int((now - due) * BUCKETS_PER_S)
            buckets[bucket] = buckets.get(bucket, 0) + 1

    def merge(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Add what `pairs` of another one says."""
        for bucket, count in pairs:
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(bucket, count), in order."""
        return sorted(self.buckets.items())

    @property
    def count(self) -> int:
        return sum(self.buckets.values())

    def percentile_ms(self, share: float) -> float:
        """0 if there is nothing."""
        rank = max(1, -int(-share * self.count // 1))
        for bucket, count in self.pairs:
            rank -= count
            if rank <= 0:
                return round((bucket + 1) * 1000 / BUCKETS_PER_S, 3)
        return 0.0

    def told(self) -> dict[str, float]:
        """p50, p99, p99.9 and the longest, in milliseconds."""
        return {
            "p50_ms": self.percentile_ms(0.5), "p99_ms": self.percentile_ms(0.99),
            "p999_ms": self.percentile_ms(0.999), "max_ms": self.percentile_ms(1.0),
        }  # fmt: skip
