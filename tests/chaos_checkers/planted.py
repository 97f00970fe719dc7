"""Defects planted into valid histories: each is a function of the lines and a source of chance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from valid_histories import PREFIX, ValidStore

Json = dict[str, Any]
Plant = Callable[[list[Json], random.Random], None]


def acked(lines: list[Json], *kinds: str) -> list[Json]:
    return [
        line for line in lines
        if line.get("type") == "op" and line["kind"] in kinds and line["outcome"] == "ok"
        and not line.get("barrier") and not line.get("final")
    ]  # fmt: skip


def events(lines: list[Json], watch: int) -> list[Json]:
    return [line for line in lines if line.get("type") == "event" and line["watch"] == watch]


def changes(lines: list[Json], watch: int) -> list[Json]:
    return [event for event in events(lines, watch) if event["kind"] != "progress"]


def sizes(lines: list[Json]) -> Counter[int]:
    """revision -> how many changes it has."""
    return Counter(event["revision"] for event in changes(lines, 0))


def watched(lines: list[Json], *, resumes: bool, at_least: int) -> int:
    """A client's watch with enough events."""
    for line in lines:
        is_client = line.get("type") == "watch" and not line.get("log") and ("resumes" in line) == resumes
        if is_client and len(changes(lines, line["watch"])) >= at_least:
            return int(line["watch"])
    raise AssertionError("no watch has enough events")


def remove(lines: list[Json], unwanted: Callable[[Json], bool]) -> None:
    lines[:] = [line for line in lines if not unwanted(line)]


# The log and the answers.


def lose_a_write(lines: list[Json], rng: random.Random) -> None:
    """Another write stands where an acknowledged one should."""
    victim = rng.choice(acked(lines, "put"))
    for event in lines:
        if event.get("type") == "event" and event.get("value") == victim["request"]["value"]:
            event["value"] = "somebody else's"


def lose_the_tail(lines: list[Json], rng: random.Random) -> None:
    """The last acknowledged write happened at a revision that the log gave to the barrier."""
    victim = max(acked(lines, "put"), key=lambda op: op["revision"])
    victim["revision"] = next(line for line in lines if line.get("barrier"))["revision"]


def lose_the_middle(lines: list[Json], rng: random.Random) -> None:
    """Revisions in the middle are gone without a trace: those behind them took their numbers."""
    lost = rng.choice(acked(lines, "put"))["revision"]
    remove(lines, lambda line: line.get("type") == "event" and line["revision"] == lost)
    for line in lines:
        if line.get("barrier") or (line.get("type") == "event" and line["revision"] > lost):
            line["revision"] -= 1


def skip_a_revision(lines: list[Json], rng: random.Random) -> None:
    revision = rng.choice(acked(lines, "put"))["revision"]
    remove(lines, lambda line: line.get("type") == "event" and line["revision"] == revision)


def read_stale(lines: list[Json], rng: random.Random) -> None:
    """A read is answered from before a write that had returned."""
    write = rng.choice(acked(lines, "put"))
    lines.append(
        {"type": "op", "client": 7, "id": 1, "kind": "get", "request": {"key": write["request"]["key"]},
         "call_ns": write["return_ns"] + 1, "return_ns": write["return_ns"] + 2, "outcome": "ok",
         "error": None, "revision": write["revision"] - 1, "response": {"kv": write["response"]["prev"]}}
    )  # fmt: skip


def write_into_the_past(lines: list[Json], rng: random.Random) -> None:
    """A write was over before another one was called that has a lower revision."""
    writes = sorted(acked(lines, "put"), key=lambda op: op["revision"])
    later = rng.choice(writes[len(writes) // 2 :])
    later["call_ns"] = writes[0]["call_ns"] - 2
    later["return_ns"] = writes[0]["call_ns"] - 1


def swap_two_writes(lines: list[Json], rng: random.Random) -> None:
    """Two acknowledged writes stand in the log in each other's place."""
    first, second = rng.sample(acked(lines, "put"), 2)
    values = first["request"]["value"], second["request"]["value"]
    for event in lines:
        if event.get("type") == "event" and event.get("value") in values:
            event["value"] = values[event["value"] == values[0]]


def apply_twice(lines: list[Json], rng: random.Random) -> None:
    """A write is in the log a second time, at the end."""
    event = rng.choice(
        [e for e in changes(lines, 0) if e["kind"] == "put" and sizes(lines)[e["revision"]] == 1]
    )
    last = max(e["revision"] for e in events(lines, 0))
    lines.append(event | {"revision": last + 1, "prev": None})


def refuse_and_do(lines: list[Json], rng: random.Random) -> None:
    """The store said "definitely not done", and did it."""
    victim = rng.choice(acked(lines, "put"))
    victim["outcome"], victim["error"] = "fail", "not_leader"
    del victim["revision"], victim["response"]


def answer_wrongly(lines: list[Json], rng: random.Random) -> None:
    victim = rng.choice([op for op in acked(lines, "get") if op["response"]["kv"]])
    victim["response"]["kv"][4] += 1


def invent_a_write(lines: list[Json], rng: random.Random) -> None:
    last = max(e["revision"] for e in events(lines, 0))
    lines.append(
        {"type": "event", "watch": 0, "kind": "put", "key": PREFIX + "00", "value": "ghost",
         "revision": last + 1}
    )  # fmt: skip


def invent_a_delete(lines: list[Json], rng: random.Random) -> None:
    last = max(e["revision"] for e in events(lines, 0))
    key = PREFIX + "barrier"
    lines.append(
        {"type": "event", "watch": 0, "kind": "delete", "key": key, "revision": last + 1, "value": None}
    )


def tear_a_transaction(lines: list[Json], rng: random.Random) -> None:
    """Of an acknowledged transaction one change is nowhere."""
    _tear(lines, rng, acked(lines, "txn"))


def tear_an_unknown_transaction(lines: list[Json], rng: random.Random) -> None:
    """Of a transaction without an answer one change is nowhere."""
    torn = rng.choice([op for op in acked(lines, "txn") if _large(op, lines)])
    torn["outcome"], torn["error"] = "unknown", "timeout"
    revision = torn.pop("revision")
    del torn["response"]
    _remove_change(lines, revision, rng)


def _tear(lines: list[Json], rng: random.Random, transactions: list[Json]) -> None:
    _remove_change(lines, rng.choice([op for op in transactions if _large(op, lines)])["revision"], rng)


def _large(operation: Json, lines: list[Json]) -> bool:
    return bool(operation["response"]["succeeded"] and sizes(lines)[operation["revision"]] >= 2)


def _remove_change(lines: list[Json], revision: int, rng: random.Random) -> None:
    """Not the first put: by it an operation is found."""
    there = [event for event in changes(lines, 0) if event["revision"] == revision]
    first = next(event for event in there if event["kind"] == "put")
    key = rng.choice([event["key"] for event in there if event is not first])
    remove(lines, lambda e: e.get("type") == "event" and (e["revision"], e.get("key")) == (revision, key))


# Watches.


def drop_an_event(lines: list[Json], rng: random.Random) -> None:
    watch = watched(lines, resumes=False, at_least=4)
    alone = [e for e in changes(lines, watch)[1:] if sizes(lines)[e["revision"]] == 1]
    lines.remove(rng.choice(alone))


def drop_a_part_of_a_revision(lines: list[Json], rng: random.Random) -> None:
    for watch in range(1, 10):
        parts = Counter(event["revision"] for event in changes(lines, watch))
        together = [event for event in changes(lines, watch) if parts[event["revision"]] >= 2]
        if together:
            lines.remove(rng.choice(together))
            return
    raise AssertionError("no watch has a revision of two events")


def drop_at_the_seam(lines: list[Json], rng: random.Random) -> None:
    """The first event after a resumption never comes. Nothing was compacted."""
    remove(lines, lambda line: line.get("kind") in ("compact", "compacted"))
    watch = watched(lines, resumes=True, at_least=2)
    first = changes(lines, watch)[0]["revision"]
    remove(lines, lambda line: line.get("watch") == watch and line.get("revision") == first)


def repeat_at_the_seam(lines: list[Json], rng: random.Random) -> None:
    watch = watched(lines, resumes=True, at_least=1)
    asked = next(line for line in lines if line.get("type") == "watch" and line["watch"] == watch)
    before = changes(lines, asked["resumes"])
    if not before:
        before = [changes(lines, watch)[0]]
        lines.insert(lines.index(asked), before[0] | {"watch": asked["resumes"]})
    lines.insert(lines.index(asked) + 1, before[-1] | {"watch": watch})


def deliver_twice(lines: list[Json], rng: random.Random) -> None:
    event = rng.choice(changes(lines, watched(lines, resumes=False, at_least=2)))
    lines.insert(lines.index(event), dict(event))


def deliver_out_of_order(lines: list[Json], rng: random.Random) -> None:
    there = changes(lines, watched(lines, resumes=False, at_least=3))
    turn = next(n for n in range(len(there) - 1) if there[n]["revision"] != there[n + 1]["revision"])
    first, second = lines.index(there[turn]), lines.index(there[turn + 1])
    lines[first], lines[second] = lines[second], lines[first]


def mark_too_early(lines: list[Json], rng: random.Random) -> None:
    event = rng.choice(changes(lines, watched(lines, resumes=False, at_least=2)))
    mark = {"type": "event", "watch": event["watch"], "kind": "progress", "revision": event["revision"]}
    lines.insert(lines.index(event), mark)


def deliver_too_early(lines: list[Json], rng: random.Random) -> None:
    first = changes(lines, watched(lines, resumes=False, at_least=1))[0]
    asked = next(line for line in lines if line.get("type") == "watch" and line["watch"] == first["watch"])
    early = next(e for e in changes(lines, 0) if e["revision"] < asked["start_revision"])
    lines.insert(lines.index(first), early | {"watch": first["watch"]})


def deliver_unasked(lines: list[Json], rng: random.Random) -> None:
    event = rng.choice(changes(lines, watched(lines, resumes=False, at_least=1)))
    lines.insert(lines.index(event), event | {"key": "/elsewhere"})


def wrong_previous(lines: list[Json], rng: random.Random) -> None:
    event = rng.choice(changes(lines, watched(lines, resumes=False, at_least=1)))
    event["prev"] = [event["key"], "never", 1, 1, 1]


def updated_as_created(lines: list[Json], rng: random.Random) -> None:
    updated = [
        event for watch in range(1, 10) for event in changes(lines, watch)
        if event["kind"] == "put" and event["create"] < event["revision"]
    ]  # fmt: skip
    event = rng.choice(updated)
    event["create"], event["version"] = event["revision"], 1


def gap_instead_of_compacted(lines: list[Json], rng: random.Random) -> None:
    """The refused watch is fed from the compact revision on instead."""
    refusal = next(line for line in lines if line.get("kind") == "compacted")
    fed = [
        e | {"watch": refusal["watch"]}
        for e in changes(lines, 0)
        if e["revision"] >= refusal["compact_revision"]
    ]
    asked = next(line for line in lines if line.get("type") == "watch" and line["watch"] == refusal["watch"])
    asked["start_revision"] = 2
    lines[lines.index(refusal) : lines.index(refusal) + 1] = fed


def compacted_by_nobody(lines: list[Json], rng: random.Random) -> None:
    refusal = next(line for line in lines if line.get("kind") == "compacted")
    refusal["compact_revision"] = 1_000_000


def compacted_below(lines: list[Json], rng: random.Random) -> None:
    """Refused though the compaction lies below the start."""
    refusal = next(line for line in lines if line.get("kind") == "compacted")
    asked = next(line for line in lines if line.get("type") == "watch" and line["watch"] == refusal["watch"])
    asked["start_revision"] = refusal["compact_revision"] + 1


# Members and elections.


def members_differ(lines: list[Json], rng: random.Random) -> None:
    rng.choice([line for line in lines if line.get("kind") == "hash"])["response"]["hash"] = "other"


def two_leaders(lines: list[Json], rng: random.Random) -> None:
    seen = rng.choice([line for line in lines if line.get("kind") == "role"])
    lines.append(seen | {"member": "c"})


def told_another_leader(lines: list[Json], rng: random.Random) -> None:
    rng.choice([line for line in lines if line.get("kind") == "term"])["leader"] = "c"


def come_apart(lines: list[Json], rng: random.Random) -> None:
    lines.append({"type": "observe", "kind": "unsettled", "why": "not together within 180 s"})


def end_by_itself(lines: list[Json], rng: random.Random) -> None:
    lines.append(
        {"type": "observe", "kind": "member_ended", "member": "a", "error": "a bug", "expected": False}
    )


def an_entry_changes(lines: list[Json], rng: random.Random) -> None:
    seen = rng.choice([line for line in lines if line.get("kind") == "applied"])
    lines.append(seen | {"hash": "other"})


PLANTED: list[tuple[Plant, str]] = [
    (lose_a_write, "S2"), (lose_the_tail, "S2"), (lose_the_middle, "S2"), (skip_a_revision, "S3"),
    (read_stale, "S1"), (read_stale, "S1b"), (write_into_the_past, "S1"), (swap_two_writes, "S2"),
    (apply_twice, "S6"), (refuse_and_do, "S6"), (answer_wrongly, "S1"), (invent_a_write, "S1"),
    (invent_a_delete, "S1"), (tear_a_transaction, "S2"), (tear_an_unknown_transaction, "S1"),
    (drop_an_event, "W7"), (drop_a_part_of_a_revision, "W4"), (drop_at_the_seam, "W6"),
    (repeat_at_the_seam, "W6"), (deliver_twice, "W3"), (deliver_out_of_order, "W2"), (mark_too_early, "W5"),
    (deliver_too_early, "W10"), (deliver_unasked, "W1"), (wrong_previous, "W8"), (updated_as_created, "W9"),
    (gap_instead_of_compacted, "W11"), (compacted_by_nobody, "W11"), (compacted_below, "W11"),
    (members_differ, "S4"), (two_leaders, "S5"), (told_another_leader, "S5"), (an_entry_changes, "S5"),
    (come_apart, "V1"), (end_by_itself, "V2"),
]  # fmt: skip


# Stores with a defect.


class ShortLeases(ValidStore):
    """Ends leases after a third of their TTL."""

    lease_s = 0.3


class LongLeases(ValidStore):
    """Ends leases long after their TTL."""

    lease_s = 4.0


class RevokesInVain(ValidStore):
    """Forgets a revoked lease and keeps its keys."""

    revokes = 1.0
    lease_clients = 4

    def end_lease(self, lease: int) -> None:
        if self.leases[lease].due_ns > self.now:
            for key in self.leases[lease].keys:
                del self.lease_of[key]
            self.leases[lease].keys.clear()
        super().end_lease(lease)


class NoFence(ValidStore):
    """Takes every token."""

    def apply(self, kind: str, request: Json) -> tuple[Json | None, str | None]:
        compares = request.get("compares", ())
        if kind == "txn" and compares[0]["operand"] and compares[0]["target"] == "create":
            response, changes = self.model.answer(self.revision + 1, kind, request | {"compares": []})
            self.commit(changes)
            return response, None
        return super().apply(kind, request)


class StaleReads(ValidStore):
    """Answers gets with the version before, under the newest revision: the revisions lie."""

    def apply(self, kind: str, request: Json) -> tuple[Json | None, str | None]:
        response, error = super().apply(kind, request)
        if kind == "get" and response is not None and self.rng.random() < 0.1:
            before = [e["prev"] for e in self.events if e["key"] == request["key"]]
            response = {"kv": before[-1] if before else None}
        return response, error


MUTANT_STORES: list[tuple[type[ValidStore], str]] = [
    (ShortLeases, "L1"), (LongLeases, "L2"), (NoFence, "L3"), (RevokesInVain, "S2"), (StaleReads, "S1b"),
]  # fmt: skip
