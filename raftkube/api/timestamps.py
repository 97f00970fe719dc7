"""metav1.Time and MicroTime: RFC 3339 texts to and from seconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def rfc3339(wall_s: float, *, micros: bool = False) -> str:
    """`wall_s` as Kubernetes writes it: 2026-11-22T19:33:00Z, or with six decimals for a MicroTime."""
    moment = datetime.fromtimestamp(wall_s, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micros else "%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=4096)
def seconds(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time. Raises ValueError: not such a time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it as 2006-01-02T15:04:05Z")
    return moment.timestamp()


def seconds_or_none(text: object) -> float | None:
    """As `seconds`; None for what is absent or no time."""
    if not isinstance(text, str):
        return None
    try:
        return seconds(text)
    except ValueError:
        return None
