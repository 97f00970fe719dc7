"""S5: at most one leader in a term, and one log: what is applied at an index is the same everywhere, forever.

Judged on what observers wrote down: `term` (a member told who leads), `role` (a member's own) and `applied`
(a member has applied this hash at this index).
"""

from __future__ import annotations

from typing import Any

from chaos.checkers.history import History
from chaos.checkers.verdict import Verdict


def check_election(history: History, verdict: Verdict) -> None:
    """Judge all observations."""
    leaders: dict[int, dict[str, Any]] = {}
    applied: dict[int, dict[str, Any]] = {}
    for seen in history.observations:
        if seen["kind"] == "term" or (seen["kind"] == "role" and seen["role"] == "leader"):
            verdict.count("leaders seen")
            _check_leader(leaders.setdefault(seen["term"], seen), seen, verdict)
        elif seen["kind"] == "applied":
            verdict.count("applied entries seen")
            first = applied.setdefault(seen["index"], seen)
            if first["hash"] != seen["hash"]:
                verdict.add(
                    "S5",
                    f"entry {seen['index']} is {first['hash']} on {first['member']} and {seen['hash']} on "
                    f"{seen['member']}",
                    first,
                    seen,
                )


def _leader(seen: dict[str, Any]) -> str:
    return str(seen["leader"] if seen["kind"] == "term" else seen["member"])


def _check_leader(first: dict[str, Any], seen: dict[str, Any], verdict: Verdict) -> None:
    if _leader(first) != _leader(seen):
        sentence = f"{_leader(first)} and {_leader(seen)} both lead in term {seen['term']}"
        verdict.add("S5", sentence, first, seen)
