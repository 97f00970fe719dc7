"""Histories that look like recorded ones, made from a seed: for pictures, not for checkers."""

from __future__ import annotations

import random
from typing import Any

from chaos.checkers.history import History, Watch
from chaos.checkers.verdict import Verdict

Json = dict[str, Any]
COUNTED = (
    "revisions", "keys judged by the second opinion", "member hashes", "leaders seen", "watch events",
    "watches resumed", "watches refused as compacted", "settled",
)  # fmt: skip
MS = 1_000_000


def operation(
    client: int, number: int, call_ms: float, return_ms: float | None, kind: str = "put", outcome: str = "ok",
    key: str = "/chaos/01", **fields: Any,
) -> Json:  # fmt: skip
    """One record; times in ms."""
    request = {"key": key} | ({"value": f"c{client}-{number}"} if kind == "put" else {})
    return {
        "type": "op", "client": client, "id": number, "kind": kind, "request": request,
        "call_ns": round(call_ms * MS), "return_ns": None if return_ms is None else round(return_ms * MS),
        "outcome": outcome, "error": None if outcome == "ok" else "timeout", "response": {}, **fields,
    }  # fmt: skip


def fault(name: str, target: str, start_ms: float, end_ms: float | None, **fields: Any) -> Json:
    return {
        "type": "fault", "name": name, "target": target, "start_ns": round(start_ms * MS),
        "end_ns": None if end_ms is None else round(end_ms * MS), **fields,
    }  # fmt: skip


def term(at_ms: float, number: int, leader: str) -> Json:
    return {"type": "observe", "kind": "term", "time_ns": round(at_ms * MS), "term": number, "leader": leader}


def role(at_ms: float, member: str, number: int, name: str) -> Json:
    return {
        "type": "observe", "kind": "role", "time_ns": round(at_ms * MS), "member": member, "term": number,
        "role": name,
    }  # fmt: skip


def make_history(
    clients: int,
    operations: int,
    faults: list[Json],
    *,
    seed: int = 1,
    length_s: float = 60.0,
    pause_ms: float = 400.0,
) -> History:
    """`operations` over `length_s` seconds; a call that meets the first `pause_ms` of a fault of a store
    waits for their end, and then eight in thirty are of unknown outcome, two are refused."""
    rng = random.Random(seed)
    history = History(
        {"format": 1, "seed": seed, "commit": "abc", "members": ["store-1", "store-2", "store-3"]}
    )
    history.faults = faults
    each = max(operations // clients, 1)
    for client in range(1, clients + 1):
        now_ms = rng.uniform(0, 5)
        for number in range(each):
            took_ms = rng.lognormvariate(1.5, 0.5)
            outcome = "ok"
            for broken in faults:
                start_ms = broken["start_ns"] / MS
                if "store" in broken["target"] and start_ms <= now_ms < start_ms + pause_ms:
                    took_ms += start_ms + pause_ms - now_ms + rng.uniform(0, 50)
                    outcome = rng.choices(("ok", "unknown", "fail"), (20, 8, 2))[0]
            kind = rng.choice(("put", "put", "get"))
            history.operations.append(
                operation(
                    client,
                    number,
                    now_ms,
                    now_ms + took_ms,
                    kind,
                    outcome,
                    key=f"/chaos/{rng.randrange(40):02d}",
                )
            )
            now_ms += max(took_ms, length_s * 1e3 / each * rng.uniform(0.5, 1.5))
            if now_ms > length_s * 1e3:
                break
    return history


def live_faults(number: int, length_s: float) -> list[Json]:
    """Kills in turn, evenly over the run; the third of each five had no effect."""
    names = (
        ("kill-store-leader", "store-1"), ("kill-apiserver", "apiserver-1"),
        ("partition-one-way", "store-2 -> store-3"),
        ("kill-scheduler", "scheduler-2"), ("pause-store-leader", "store-3"),
    )  # fmt: skip
    step_ms = length_s * 1e3 / (number + 1)
    found = []
    for place in range(number):
        name, target = names[place % len(names)]
        start_ms = step_ms * (place + 1)
        effect = {"kind": "reset", "time_ns": round((start_ms + 9) * MS), "component": target}
        found.append(
            fault(name, target, start_ms, start_ms + step_ms * 0.4, effect=None if place % 5 == 2 else effect)
        )
    return found


def simulated_history(seed: int = 7) -> History:
    """A simulation's: virtual time from 0, roles, overlapping faults, a plan, a call that never came back."""
    faults = [
        fault("crash", "store-1", 10_000, 14_000, effect={"crashed": 1}),
        fault("cut", "store-2 -> store-3", 12_000, 31_000, effect={"dropped": 40}),
        fault("lose-unsynced", "all", 40_000, 40_000, effect={"bytes": 812}),
        fault("slow-disk", "store-3", 50_000, None, effect=None),
    ]
    history = make_history(3, 3_000, faults, seed=seed, length_s=60.0, pause_ms=900)
    history.header |= {
        "plan": {
            "format": 1, "world": "store", "seed": seed, "duration_s": 60.0, "settings": {"members": 3},
            "load": {"clients": 3}, "mutant": "skip-vote",
            "faults": [
                {"at_s": 40.0, "fault": "lose-unsynced", "choice": 0, "lasts_s": 0.0, "amount": 0.25},
                {"at_s": 10.0, "fault": "crash", "choice": 0, "lasts_s": 4.0, "amount": 0.5},
            ],
        },
        "faults_skipped": [{"name": "partition-nft", "why": "skipped: needs root"}],
    }  # fmt: skip
    history.observations = [
        role(300, "store-1", 1, "leader"), role(10_700, "store-3", 2, "leader"),
        role(14_100, "store-1", 2, "follower"),
        role(40_000, "store-3", 2, "follower"), role(40_600, "store-2", 3, "leader"),
    ]  # fmt: skip
    history.operations.append(operation(2, 9_999, 40_001, None, "put", "unknown"))
    return history


def invalid(history: History) -> Verdict:
    """A verdict over `history` that names its operation in the middle as lost."""
    verdict = valid(history)
    broken = history.operations[len(history.operations) // 2]
    broken["revision"] = 17
    verdict.add("S2", "lost write: put /chaos/01 <b>was</b> acknowledged at revision 17", broken)
    verdict.add("W7", "watch 3: /chaos/01 at revision 17 never came")
    history.watches[0] = Watch(0, "\0", "\0", 1, log=True)
    return verdict


def valid(history: History) -> Verdict:
    """As if all that a store promises had been judged, but leases."""
    verdict = Verdict()
    verdict.count("operations", len(history.operations))
    for counted in COUNTED:
        verdict.count(counted)
    return verdict
