"""Who led when, as it was observed from outside (`term`, live runs) or by the simulation (`role`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Leadership(NamedTuple):
    """A member led in a term, from the first moment that was seen to the last."""

    member: str
    term: int
    start_ns: int
    end_ns: int


def leaderships(observations: Iterable[dict[str, Any]], end_ns: int) -> list[Leadership]:
    """In the order of their beginnings. A live run's leader is taken to lead until the next one is seen; a
    simulated one until its role changes, so two can lead at once (an old one that does not know it yet)."""
    found: list[Leadership] = []
    open_: dict[str, tuple[str, int, int]] = {}  # by whom it ends: everyone ("") or the member itself
    for seen in sorted(observations, key=lambda seen: seen.get("time_ns", 0)):
        if seen["kind"] == "term":
            _close(found, open_, "", seen["time_ns"])
            open_[""] = (seen["leader"], seen["term"], seen["time_ns"])
        elif seen["kind"] == "role":
            _close(found, open_, seen["member"], seen["time_ns"])
            if seen["role"] == "leader":
                open_[seen["member"]] = (seen["member"], seen["term"], seen["time_ns"])
    for key in list(open_):
        _close(found, open_, key, end_ns)
    return sorted(found, key=lambda led: (led.start_ns, led.term))


def _close(found: list[Leadership], open_: dict[str, tuple[str, int, int]], key: str, end_ns: int) -> None:
    if key in open_:
        member, term, start_ns = open_.pop(key)
        found.append(Leadership(member, term, start_ns, max(start_ns, end_ns)))
