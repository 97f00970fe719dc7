"""All checkers over one history."""

from __future__ import annotations

from typing import Final

from chaos.checkers import control_loops
from chaos.checkers.api_watches import check_api_watches
from chaos.checkers.control_loops import judge_control_loops
from chaos.checkers.election import check_election
from chaos.checkers.history import History, no_collection
from chaos.checkers.linearizability import check_linearizability
from chaos.checkers.liveness import check_liveness
from chaos.checkers.log import log_so_far, read_log
from chaos.checkers.members import check_members
from chaos.checkers.revision_order import check_claims, check_revision_order
from chaos.checkers.verdict import Verdict
from chaos.checkers.watches import check_watches

# docs/INVARIANTS.md tells how each is judged, and what that cannot see.
INVARIANTS: Final = {
    "S1": "strict serializability: one order, in real time, and every answer follows from it",
    "S1b": "each key by itself is linearizable, whatever the revisions say",
    "S2": "every acknowledged write is in the log",
    "S3": "revisions are dense",
    "S4": "members have equal state at equal revisions",
    "S5": "one leader in a term, one entry at an index",
    "S6": "nothing is applied twice, nothing refused is applied",
    "W1": "watch: only keys that were asked for",
    "W2": "watch: in order",
    "W3": "watch: no event twice",
    "W4": "watch: all events of a revision together",
    "W5": "watch: a progress mark comes after everything up to it",
    "W6": "watch: resumed without gap or repetition",
    "W7": "watch: no gap",
    "W8": "watch: prev_kv is the version before",
    "W9": "watch: a created key is told from an updated one",
    "W10": "watch: nothing before the asked revision",
    "W11": "watch: a compacted start is an error, never a gap",
    "L1": "lease: it never ends before its TTL",
    "L2": "lease: its keys are gone within its TTL and a stated bound",
    "L3": "lease: a write under an older holder's token never succeeds",
    "L4": "lease: a new leader of the store extends leases instead of ending them",
    "V1": "once faults stop, the members come together in bounded time",
    "V2": "no member ends by itself, unless its disk failed or it was removed",
    **{name: promise for name, promise in control_loops.INVARIANTS.items() if name not in ("L3",)},
}


def judge(history: History) -> Verdict:
    """The verdict over everything that was recorded, of a store or of a control plane."""
    if history.header.get("world") == "cluster":
        return judge_control_loops(history)
    verdict = Verdict()
    with no_collection():
        log = read_log(history, verdict)
        if log:
            versions = check_revision_order(history, log, verdict)
            check_watches(history, versions, verdict)
            check_api_watches(history, verdict)
        else:
            check_claims(history, log_so_far(history), verdict)
        check_linearizability(history, verdict)
        check_members(history, verdict)
        check_election(history, verdict)
        check_liveness(history, verdict)
    return verdict
