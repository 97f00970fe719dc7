"""The door to time.

Durations and deadlines are `monotonic()`; dates for people are `wall()`. Sleeping is trio's own, whose
clock a simulation replaces, so `monotonic()` reads trio's clock as well and the two never disagree.
"""

from __future__ import annotations

import time
from typing import Protocol

import trio


class Clock(Protocol):
    """What every module that needs time takes as an argument."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back; comparable within one process only."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01T00:00:00Z; may jump."""
        ...


class SystemClock:
    """This machine's clock: CLOCK_MONOTONIC through trio, and the wall clock."""

    __slots__ = ()

    def monotonic(self) -> float:
        return trio.current_time()

    def wall(self) -> float:
        return time.time()


def collector_seconds() -> float:
    """CLOCK_MONOTONIC itself, for the garbage collector's callbacks, which run outside trio and in any
    thread; never for a deadline."""
    return time.monotonic()


def rfc3339(wall_s: float, *, micros: bool = False) -> str:
    """`wall_s` as Kubernetes writes times: 2026-11-22T19:33:00Z, or with six decimals for MicroTime."""
    whole = int(wall_s // 1)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    if micros:
        return f"{text}.{int((wall_s - whole) * 1e6):06d}Z"
    return text + "Z"


def parse_rfc3339(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time in UTC, with or without decimals or offset.

    Raises ValueError: not such a time.
    """
    import datetime

    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
