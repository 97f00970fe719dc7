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
    """In the order of their beginnings. Where it is recorded that members stop leading, two can lead at once
    (an old one that does not know it yet); else one is taken to lead until the next one is seen."""
    in_order = sorted(
        (seen for seen in observations if seen["kind"] in ("term", "role")),
        key=lambda seen: int(seen["time_ns"]),
    )
    ends_are_told = any(seen["kind"] == "role" and seen["role"] != "leader" for seen in in_order)
    found: list[Leadership] = []
    leading: dict[str, Leadership] = {}
    for seen in in_order:
        member, term, at_ns = str(seen.get("leader", seen.get("member"))), seen["term"], seen["time_ns"]
        leads = seen["kind"] == "term" or seen["role"] == "leader"
        if leads and member in leading and leading[member].term == term:
            continue
        over = [member] if seen["kind"] == "role" and ends_are_told else list(leading)
        found += _ended(leading, over if leads else [member], at_ns)
        if leads:
            leading[member] = Leadership(member, term, at_ns, at_ns)
    found += _ended(leading, list(leading), end_ns)
    return sorted(found, key=lambda led: (led.start_ns, led.term))


def _ended(leading: dict[str, Leadership], members: list[str], at_ns: int) -> list[Leadership]:
    """Take them out of `leading`, as ended at `at_ns`."""
    gone = [leading.pop(member) for member in members if member in leading]
    return [led._replace(end_ns=max(led.start_ns, at_ns)) for led in gone]
