"""Whether members of a store differ, by the members' own words alone: hashes at one revision, reads of each.

A violation that a checker found is confirmed by it; it needs no trust in the checkers.
"""

from __future__ import annotations

from typing import Any

from chaos.checkers.history import History


def members_differ(history: History) -> str | None:
    """A sentence that says how the members differ at the end, None if they do not."""
    return _hashes_differ(history) or _reads_differ(history)


def _hashes_differ(history: History) -> str | None:
    by_revision: dict[int, dict[str, str]] = {}
    for operation in history.operations:
        if operation["kind"] == "hash" and operation["outcome"] == "ok":
            member = operation["request"]["member"]
            by_revision.setdefault(operation["revision"], {})[member] = operation["response"]["hash"]
    for revision, told in sorted(by_revision.items()):
        if len(set(told.values())) > 1:
            values = ", ".join(f"{member} {value}" for member, value in sorted(told.items()))
            return f"the members' hashes at revision {revision} differ: {values}"
    return None


def _reads_differ(history: History) -> str | None:
    """Reads that each member answered from its own state after it had applied the barrier."""
    reads: dict[str, dict[str, Any]] = {
        operation["read_from"]: operation
        for operation in history.operations
        if operation.get("final") and operation["outcome"] == "ok"
    }
    names = sorted(reads)
    for name in names[1:]:
        first, other = reads[names[0]], reads[name]
        if first["revision"] != other["revision"]:
            return (
                f"after the barrier {names[0]} stands at revision {first['revision']} and {name} at "
                f"{other['revision']}"
            )
        if first["response"] != other["response"]:
            key = _first_difference(first["response"]["kvs"], other["response"]["kvs"])
            return f"after the barrier {names[0]} and {name} have different values, the first at {key}"
    return None


def _first_difference(one: list[Any], other: list[Any]) -> str:
    both = zip(one, other, strict=False)
    return str(next((a[0] for a, b in both if a != b), max(one, other, key=len)[-1][0]))
