"""All checkers over one history."""

from __future__ import annotations

from typing import Final

from chaos.checkers.history import History
from chaos.checkers.liveness import check_liveness
from chaos.checkers.members import check_members
from chaos.checkers.revision_order import check_revision_order
from chaos.checkers.verdict import Verdict
from chaos.checkers.watches import check_watches

INVARIANTS: Final = {
    "S1": "strict serializability: one order, in real time, and every answer follows from it",
    "S2": "every acknowledged write is in the log",
    "S3": "revisions are dense",
    "S4": "members have equal state at equal revisions",
    "S6": "nothing is applied twice, nothing refused is applied",
    "W1": "watch: only keys that were asked for",
    "W2": "watch: in order",
    "W3": "watch: no event twice",
    "W4": "watch: all events of a revision together",
    "W5": "watch: a progress mark comes after everything up to it",
    "W7": "watch: no gap",
    "W8": "watch: prev_kv is the version before",
    "W10": "watch: nothing before the asked revision",
    "V1": "once faults stop, the members come together in bounded time",
    "V2": "no member ends by itself, unless its disk failed or it was removed",
}


def judge(history: History) -> Verdict:
    """The verdict over everything that was recorded."""
    verdict = Verdict()
    log = check_revision_order(history, verdict)
    if log:
        check_watches(history, log, verdict)
    check_members(history, verdict)
    check_liveness(history, verdict)
    return verdict
