"""Whether members of a store differ, by the members' own words alone: hashes at one revision, reads of each.

A violation that a checker found is confirmed by it; it needs no trust in the checkers.
"""

from __future__ import annotations

from typing import Any

from chaos.checkers.history import History


def members_differ(history: History) -> str | None:
    """A sentence that says how the members differ at the end, None if they do not."""
    found = [sentence for sentence in (_hashes_differ(history), _reads_differ(history)) if sentence]
    return "; ".join(found) or None


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
    """Reads that each member answered from its own state once all had applied the log to one index."""
    reads: dict[str, dict[str, Any]] = {
        operation["read_from"]: operation
        for operation in history.operations
        if operation.get("final") and operation["outcome"] == "ok"
    }
    at = {name: operation["revision"] for name, operation in sorted(reads.items())}
    if len(set(at.values())) > 1:
        stand = ", ".join(f"{name} {revision}" for name, revision in at.items())
        return f"having applied the same log, they stand at different revisions: {stand}"
    answers = {name: reads[name]["response"]["kvs"] for name in at}
    for name in list(answers)[1:]:
        first = next(iter(answers))
        if answers[first] != answers[name]:
            key = _first_difference(answers[first], answers[name])
            return f"{first} and {name} answer differently from their own state, first at {key}"
    return None


def _first_difference(one: list[Any], other: list[Any]) -> str:
    both = zip(one, other, strict=False)
    return str(next((a[0] for a, b in both if a != b), max(one, other, key=len)[-1][0]))
