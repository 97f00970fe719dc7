"""The checkers accept every clean history and name what is wrong with every planted one."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from chaos.checkers.history import Change, History, HistoryError, read_history
from chaos.checkers.judge import judge
from chaos.checkers.model import Model

Json = dict[str, Any]


class Recorder:
    """A correct store of one thread with overlapping clients: what a clean history looks like."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.model, self.revision, self.now = Model(), 1, 1000
        self.operations: list[Json] = []
        self.events: list[Json] = []
        self.values = 0

    def value(self) -> str:
        self.values += 1
        return f"v{self.values}"

    def tick(self) -> int:
        self.now += self.rng.randint(1, 9)
        return self.now

    def commit(self, changes: list[Change]) -> None:
        if changes:
            self.revision += 1
            for change in changes:
                prev = self.model.get(change.key)
                self.events.append(
                    {"type": "event", "watch": 0, "kind": "delete" if change.value is None else "put",
                     "key": change.key, "value": change.value, "revision": self.revision, "prev": prev}
                )  # fmt: skip
            self.model.apply(self.revision, changes)

    def step(self) -> None:
        key = f"k{self.rng.randrange(5)}"
        kind = self.rng.choice(["put", "put", "get", "delete", "txn", "range"])
        call = self.tick()
        request: Json = {"key": key}
        changes: list[Change] = []
        if kind == "put":
            request["value"] = self.value()
            response: Json = {"prev": self.model.get(key)}
            changes = [Change(key, request["value"])]
        elif kind == "get":
            response = {"kv": self.model.get(key)}
        elif kind == "delete":
            before = self.model.get(key)
            response = {"deleted": 1 if before else 0, "prev": before}
            changes = [Change(key, None)] if before else []
        elif kind == "range":
            request["range_end"] = "l"
            response = {"kvs": self.model.range(key, "l")}
        else:
            request, response, changes = self.txn(key)
        outcome = "unknown" if kind != "range" and self.rng.random() < 0.1 else "ok"
        happened = outcome == "ok" or self.rng.random() < 0.5
        if happened:
            self.commit(changes)
        operation = {
            "type": "op", "client": self.rng.randrange(4), "id": len(self.operations), "kind": kind,
            "request": request, "call_ns": call, "outcome": outcome, "error": None,
            "return_ns": self.tick(),
        }  # fmt: skip
        if outcome == "ok":
            operation |= {"revision": self.revision, "response": response}
        self.operations.append(operation)

    def txn(self, key: str) -> tuple[Json, Json, list[Change]]:
        found = self.model.keys.get(key)
        operand = found.mod if found and self.rng.random() < 0.7 else 0
        request = {
            "compares": [{"key": key, "target": "mod", "result": "=", "operand": operand}],
            "success": [{"kind": "put", "key": name, "value": self.value()} for name in (key, "z")],
            "failure": [{"kind": "get", "key": key}],
        }  # fmt: skip
        succeeded = self.model.holds(request["compares"][0])
        scratch = Model()
        scratch.keys = dict(self.model.keys)
        branch = request["success" if succeeded else "failure"]
        response = {"succeeded": succeeded, "responses": scratch.run(self.revision + succeeded, branch)}
        changes = [Change(item["key"], item["value"]) for item in branch if item["kind"] == "put"]
        return request, response, changes

    def finish(self) -> list[Json]:
        barrier = {"key": "barrier", "value": self.value()}
        call, prev = self.tick(), self.model.get("barrier")
        self.commit([Change("barrier", barrier["value"])])
        common = {"type": "op", "client": 9, "outcome": "ok", "error": None, "revision": self.revision}
        self.operations.append(
            common | {"id": 1, "kind": "put", "request": barrier, "response": {"prev": prev}, "barrier": True,
                      "call_ns": call, "return_ns": self.tick()}
        )  # fmt: skip
        for member in ("a", "b"):
            read = {"key": "", "range_end": "\0", "member": member}
            self.operations.append(
                common | {"id": member, "kind": "range", "request": read, "final": True, "serializable": True,
                          "response": {"kvs": self.model.range("", "\0")},
                          "call_ns": self.tick(), "return_ns": self.tick()}
            )  # fmt: skip
            self.operations.append(
                common | {"id": member, "kind": "hash", "request": {"member": member}, "serializable": True,
                          "response": {"hash": "h"}, "call_ns": self.tick(), "return_ns": self.tick()}
            )  # fmt: skip
        watch = {"type": "watch", "watch": 0, "key": "", "range_end": "\0", "start_revision": 1, "log": True}
        client = {"type": "watch", "watch": 1, "key": "k", "range_end": "l", "start_revision": 5}
        seen = [
            event | {"watch": 1} for event in self.events if event["revision"] >= 5 and event["key"][0] == "k"
        ]
        header = {"format": 1, "seed": 0, "members": ["a", "b"]}
        return [header, watch, client, *self.operations, *self.events, *seen]


def recorded(seed: int, steps: int = 120) -> list[Json]:
    recorder = Recorder(seed)
    for _ in range(steps):
        recorder.step()
    return recorder.finish()


def load(lines: list[Json]) -> History:
    return read_history(orjson.dumps(line) for line in lines)


@pytest.mark.parametrize("seed", range(200))
def test_a_clean_history_is_valid(seed: int) -> None:
    verdict = judge(load(recorded(seed)))
    assert verdict.word == "valid", (verdict.violations[:2], verdict.unknown_because)
    assert verdict.checked["operations"] >= 120
    assert verdict.checked["watch events"] > 0


def _acked(lines: list[Json], *kinds: str) -> list[Json]:
    return [
        line for line in lines
        if line.get("type") == "op" and line["kind"] in kinds and line["outcome"] == "ok"
        and not line.get("barrier") and not line.get("final")
    ]  # fmt: skip


def _events(lines: list[Json], watch: int) -> list[Json]:
    return [line for line in lines if line.get("type") == "event" and line["watch"] == watch]


def lose_a_write(lines: list[Json], rng: random.Random) -> None:
    """Another write stands where an acknowledged one should."""
    victim = rng.choice(_acked(lines, "put"))
    for event in lines:
        if event.get("type") == "event" and event["value"] == victim["request"]["value"]:
            event["value"] = "somebody else's"


def lose_the_tail(lines: list[Json], rng: random.Random) -> None:
    """The last acknowledged write happened at a revision that the log gave to the barrier."""
    victim = _acked(lines, "put")[-1]
    victim["revision"] = next(line for line in lines if line.get("barrier"))["revision"]


def read_stale(lines: list[Json], rng: random.Random) -> None:
    """A read is answered from before a write that had returned."""
    writes = _acked(lines, "put")
    write = writes[-1]
    lines.append(
        {"type": "op", "client": 7, "id": 1, "kind": "get", "request": {"key": write["request"]["key"]},
         "call_ns": write["return_ns"] + 1, "return_ns": write["return_ns"] + 2, "outcome": "ok",
         "error": None, "revision": 1, "response": {"kv": None}}
    )  # fmt: skip


def apply_twice(lines: list[Json], rng: random.Random) -> None:
    """A write is in the log a second time, at the end."""
    event = _events(lines, 0)[0]
    last = max(e["revision"] for e in _events(lines, 0))
    lines.append(event | {"revision": last + 1, "prev": None})


def refuse_and_do(lines: list[Json], rng: random.Random) -> None:
    """The store said "definitely not done", and did it."""
    victim = rng.choice(_acked(lines, "put"))
    victim["outcome"], victim["error"] = "fail", "not_leader"
    del victim["revision"], victim["response"]


def answer_wrongly(lines: list[Json], rng: random.Random) -> None:
    """A transaction says the other branch."""
    victim = next(op for op in _acked(lines, "txn") if not op["response"]["succeeded"])
    victim["response"]["responses"][0] = {"kv": ["k9", "x", 1, 1, 1]}


def invent_a_write(lines: list[Json], rng: random.Random) -> None:
    last = max(e["revision"] for e in _events(lines, 0))
    lines.append(
        {"type": "event", "watch": 0, "kind": "put", "key": "k1", "value": "ghost", "revision": last + 1}
    )  # fmt: skip


def skip_a_revision(lines: list[Json], rng: random.Random) -> None:
    revision = _acked(lines, "put")[3]["revision"]
    lines[:] = [line for line in lines if not (line.get("type") == "event" and line["revision"] == revision)]


def drop_a_watch_event(lines: list[Json], rng: random.Random) -> None:
    lines.remove(rng.choice(_events(lines, 1)[:-1]))


def deliver_twice(lines: list[Json], rng: random.Random) -> None:
    lines.append(_events(lines, 1)[-1])


def deliver_out_of_order(lines: list[Json], rng: random.Random) -> None:
    first, second = [i for i, line in enumerate(lines) if line.get("type") == "event" and line["watch"] == 1][
        3:5
    ]
    lines[first], lines[second] = lines[second], lines[first]


def mark_too_early(lines: list[Json], rng: random.Random) -> None:
    position = next(i for i, line in enumerate(lines) if line.get("type") == "event" and line["watch"] == 1)
    mark = {"type": "event", "watch": 1, "kind": "progress", "revision": lines[position]["revision"]}
    lines.insert(position, mark)


def deliver_too_early(lines: list[Json], rng: random.Random) -> None:
    position = next(i for i, line in enumerate(lines) if line.get("type") == "event" and line["watch"] == 1)
    early = next(e for e in _events(lines, 0) if e["key"][0] == "k")
    lines.insert(position, early | {"watch": 1})


def deliver_unasked(lines: list[Json], rng: random.Random) -> None:
    lines.append(_events(lines, 0)[-1] | {"watch": 1})


def wrong_previous(lines: list[Json], rng: random.Random) -> None:
    rng.choice(_events(lines, 1))["prev"] = ["k0", "never", 1, 1, 1]


def members_differ(lines: list[Json], rng: random.Random) -> None:
    next(line for line in lines if line.get("kind") == "hash")["response"]["hash"] = "other"


PLANTED: list[tuple[Callable[[list[Json], random.Random], None], str]] = [
    (lose_a_write, "S2"), (lose_the_tail, "S2"), (read_stale, "S1"), (apply_twice, "S6"),
    (refuse_and_do, "S6"),
    (answer_wrongly, "S1"), (invent_a_write, "S1"), (skip_a_revision, "S3"), (drop_a_watch_event, "W7"),
    (deliver_twice, "W3"), (deliver_out_of_order, "W2"), (mark_too_early, "W5"), (deliver_too_early, "W10"),
    (deliver_unasked, "W1"), (wrong_previous, "W8"), (members_differ, "S4"),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "invariant"), PLANTED, ids=lambda item: getattr(item, "__name__", item))
@pytest.mark.parametrize("seed", range(12))
def test_a_planted_fault_is_found(
    plant: Callable[[list[Json], random.Random], None], invariant: str, seed: int
) -> None:
    lines = copy.deepcopy(recorded(seed, 200))
    plant(lines, random.Random(seed))
    verdict = judge(load(lines))
    assert verdict.exit_code == 1
    assert invariant in {violation.invariant for violation in verdict.violations}


def test_a_lease_that_ends_between_two_hashes_is_no_difference() -> None:
    """It changes the state and not the revision: only hashes of one point of the log must be equal."""
    lines = copy.deepcopy(recorded(1))
    hashes = [line["response"] for line in lines if line.get("kind") == "hash"]
    for index, response in enumerate(hashes):
        response["applied_index"] = 7
        if index == 0:
            response.update(applied_index=8, hash="later")
    assert judge(load(lines)).exit_code == 0
    hashes[0]["applied_index"] = 7
    assert {violation.invariant for violation in judge(load(lines)).violations} == {"S4"}


def test_without_the_barrier_nothing_is_claimed() -> None:
    lines = [line for line in recorded(1) if not line.get("barrier")]
    verdict = judge(load(lines))
    assert (verdict.word, verdict.exit_code) == ("unknown", 2)


def test_a_member_that_was_not_read_leaves_a_doubt() -> None:
    lines = [line for line in recorded(1) if line.get("request", {}).get("member") != "b"]
    verdict = judge(load(lines))
    assert verdict.unknown_because == ["no read after the barrier from b"]


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"format": 9}'])
def test_a_file_that_is_no_history_is_named(line: bytes) -> None:
    with pytest.raises(HistoryError, match="line 1"):
        read_history([line])
