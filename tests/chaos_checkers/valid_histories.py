"""Histories as a correct store gives them: overlapping clients, leases, fences, compaction, watches.

One virtual clock; each operation takes effect at one moment between its call and its return, or, if its
outcome is unknown, at one after its call or never.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from chaos.checkers.history import Change
from chaos.checkers.model import Model

Json = dict[str, Any]
Client = Generator[tuple[str, Json, Json], Json, None]

PREFIX, END = "/c/", "/c0"
MS = 1_000_000
TTL_S = 1
SLACK_S = 0.5


@dataclass
class Held:
    """A lease as the store has it."""

    due_ns: int
    keys: set[str] = field(default_factory=set)


class ValidStore:
    """Runs clients against a correct store."""

    lease_s: float = TTL_S  # after how long it ends a lease
    revokes: float = 0.5  # how often a client revokes one
    lease_clients = 1

    def __init__(self, seed: int, *, keys: int = 5, clients: int = 4, doubt: float = 0.08) -> None:
        self.rng = random.Random(seed)
        self.keys = [f"{PREFIX}{number:02d}" for number in range(keys)]
        self.doubt = doubt
        self.clients = clients
        self.model, self.revision, self.compacted = Model(), 1, 0
        self.now = 1_000 * MS
        self.leases: dict[int, Held] = {}
        self.lease_of: dict[str, int] = {}
        self.operations: list[Json] = []
        self.waiting: dict[int, Json] = {}
        self.events: list[Json] = []
        self.compactions: list[tuple[int, int]] = []  # when it was applied, at which revision
        self.observed: list[Json] = []
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = 0

    def unique(self) -> int:
        self._numbers += 1
        return self._numbers

    def value(self) -> str:
        return f"v{self.unique()}"

    def at(self, time_ns: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (time_ns, self.unique(), action))

    # The store.

    def commit(self, changes: list[Change], leases: dict[str, int] | None = None) -> None:
        if not changes:
            return
        self.revision += 1
        for key, value in changes:
            prev = self.model.change(self.revision, key, value)
            kind = "delete" if value is None else "put"
            event = {"type": "event", "watch": 0, "kind": kind, "key": key, "value": value,
                     "revision": self.revision, "prev": prev, "recv_ns": self.now + 1}  # fmt: skip
            kv = self.model.get(key)
            if kv is not None:
                event |= {"create": kv[2], "version": kv[4]}
            self.events.append(event)
            if key in self.lease_of:
                self.leases[self.lease_of.pop(key)].keys.discard(key)
            lease = (leases or {}).get(key, 0)
            if value is not None and lease in self.leases:
                self.lease_of[key] = lease
                self.leases[lease].keys.add(key)

    def end_lease(self, lease: int) -> None:
        self.commit([Change(key, None) for key in sorted(self.leases[lease].keys)])
        del self.leases[lease]

    def expire(self, lease: int) -> None:
        held = self.leases.get(lease)
        if held is not None and held.due_ns <= self.now:
            self.end_lease(lease)

    def apply(self, kind: str, request: Json) -> tuple[Json | None, str | None]:
        """The response, or None and the error."""
        if kind.startswith("lease_") or kind == "compact":
            return getattr(self, kind)(request)
        items = [request] if kind != "txn" else [*request["success"], *request["failure"]]
        leases = {item["key"]: item["lease"] for item in items if item.get("lease")}
        if set(leases.values()) - self.leases.keys():
            return None, "lease_not_found"
        response, changes = self.model.answer(self.revision + 1, kind, request)
        self.commit(changes, leases)
        return response, None

    def lease_grant(self, request: Json) -> tuple[Json | None, str | None]:
        self.leases[request["lease"]] = Held(0)
        return self.lease_keep_alive(request)

    def lease_keep_alive(self, request: Json) -> tuple[Json | None, str | None]:
        lease = request["lease"]
        if lease not in self.leases:
            return None, "lease_not_found"
        due = self.leases[lease].due_ns = self.now + int(self.lease_s * 1_000) * MS
        self.at(due + self.rng.randrange(100 * MS), lambda: self.expire(lease))
        return {"lease": lease, "ttl_s": TTL_S}, None

    def lease_revoke(self, request: Json) -> tuple[Json | None, str | None]:
        if request["lease"] not in self.leases:
            return None, "lease_not_found"
        self.end_lease(request["lease"])
        return {"lease": request["lease"], "ttl_s": 0}, None

    def compact(self, request: Json) -> tuple[Json | None, str | None]:
        if request["revision"] <= self.compacted:
            return None, "compacted"
        self.compacted = request["revision"]
        self.compactions.append((self.now, self.compacted))
        return {}, None

    # Clients.

    def run(self, operations: int) -> None:
        for number in range(self.clients):
            self.start(number, self.key_client())
        others = [self.candidate(), self.candidate(), self.compactor()]
        others += [self.lease_client() for _ in range(self.lease_clients)]
        for number, script in enumerate(others, self.clients):
            self.start(number, script)
        while len(self.operations) < operations:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        for record in self.waiting.values():  # the clients are gone; nobody knows
            kept = {name: value for name, value in record.items() if name not in ("revision", "response")}
            self.operations.append(kept | {"outcome": "unknown", "error": "cancelled", "return_ns": self.now})
        self.now += 100 * MS

    def start(self, client: int, script: Client) -> None:
        self.at(self.now + self.rng.randrange(MS), lambda: self.call(client, script, *next(script)))

    def call(self, client: int, script: Client, kind: str, request: Json, marks: Json) -> None:
        rng = self.rng
        record: Json = {"type": "op", "client": client, "id": self.unique(), "kind": kind, "request": request,
                        "call_ns": self.now, "return_ns": None, "outcome": "ok", "error": None}  # fmt: skip
        record |= {name: value for name, value in marks.items() if name != "pause_ms"}
        chance = rng.random()
        takes = rng.randrange(1, 3 * MS)
        answered = self.now + takes + rng.randrange(1, 3 * MS)
        if chance < self.doubt:
            record["outcome"], record["error"] = "unknown", "timeout"
            if rng.random() < 0.6:
                late = rng.choice((takes, 50 * takes))
                self.at(self.now + late, lambda: self.effect(dict(record)))
        elif chance < 1.3 * self.doubt:
            record["outcome"], record["error"] = "fail", "not_leader"
        else:
            self.at(self.now + takes, lambda: self.effect(record))
        self.waiting[record["id"]] = record
        self.at(answered, lambda: self.back(record, script, marks.get("pause_ms", 5)))

    def effect(self, record: Json) -> None:
        response, error = self.apply(record["kind"], record["request"])
        if error is None:
            record |= {"revision": self.revision, "response": response}
        else:
            record |= {"outcome": "fail", "error": error}

    def back(self, record: Json, script: Client, pause_ms: int) -> None:
        record["return_ns"] = self.now
        del self.waiting[record["id"]]
        self.operations.append(record)
        client, rest = record["client"], self.rng.randrange(1, 2 * pause_ms * MS)
        self.at(self.now + rest, lambda: self.call(client, script, *script.send(record)))

    def key_client(self) -> Client:
        rng = self.rng
        while True:
            kind = rng.choices(("put", "get", "txn", "delete", "drop", "range"), (40, 25, 15, 9, 2, 9))[0]
            key = rng.choice(self.keys)
            request: Json = {"key": key}
            if kind == "put":
                request["value"] = self.value()
            elif kind == "range":
                request = {"key": PREFIX, "range_end": END}
            elif kind == "drop":
                kind, request = "delete", {"key": key, "range_end": key + "9"}
            elif kind == "txn":
                request = self.transaction(rng)
            yield kind, request, {}

    def transaction(self, rng: random.Random) -> Json:
        keys = rng.sample(self.keys, rng.choice((1, 2, 2, min(5, len(self.keys)))))
        success: list[Json] = [{"kind": "put", "key": keys[0], "value": self.value()}]
        for key in keys[1:]:
            put = rng.random() < 0.7
            success.append(
                {"kind": "put", "key": key, "value": self.value()} if put else {"kind": "delete", "key": key}
            )
        compare = {"key": keys[0], "target": "version", "result": ">", "operand": rng.randrange(2)}
        return {"compares": [compare], "success": success, "failure": [{"kind": "get", "key": keys[0]}]}

    def lease_client(self) -> Client:
        rng = self.rng
        while True:
            lease = self.unique()
            yield "lease_grant", {"lease": lease, "ttl_s": TTL_S}, {}
            for number in range(rng.randint(1, 3)):
                request = {"key": f"{PREFIX}lease-{number}", "value": self.value(), "lease": lease}
                yield "put", request, {}
            for _ in range(rng.randrange(3)):
                yield "lease_keep_alive", {"lease": lease}, {"pause_ms": 300}
            if rng.random() < self.revokes:
                yield "lease_revoke", {"lease": lease}, {}
            yield "get", {"key": f"{PREFIX}lease-0"}, {"pause_ms": 400}

    def candidate(self) -> Client:
        rng, key = self.rng, PREFIX + "leader"
        while True:
            lease = self.unique()
            yield "lease_grant", {"lease": lease, "ttl_s": TTL_S}, {}
            won = yield (
                "txn",
                {"compares": [{"key": key, "target": "create", "result": "=", "operand": 0}],
                 "success": [{"kind": "put", "key": key, "value": self.value(), "lease": lease}],
                 "failure": [{"kind": "get", "key": key}]},
                {"pause_ms": 50},
            )  # fmt: skip
            if won["outcome"] != "ok" or not won["response"]["succeeded"]:
                continue
            for _ in range(rng.randint(4, 20)):
                token = won["revision"]
                yield (
                    "txn",
                    {"compares": [{"key": key, "target": "create", "result": "=", "operand": token}],
                     "success": [{"kind": "put", "key": PREFIX + "data", "value": self.value()}],
                     "failure": [{"kind": "get", "key": key}]},
                    {"fence": {"key": key, "create_revision": token}, "pause_ms": 120},
                )  # fmt: skip

    def compactor(self) -> Client:
        while True:
            yield (
                "compact",
                {"revision": max(1, self.revision - self.rng.randrange(20, 60))},
                {"pause_ms": 150},
            )

    # The end.

    def finish(self) -> list[Json]:
        self.now += 10_000 * MS  # whatever is still on its way has no effect any more
        for lease in sorted(self.leases):
            held = self.leases[lease]
            self.now = max(self.now, held.due_ns)
        barrier = {"key": PREFIX + "barrier", "value": self.value()}
        call = self.now
        for lease in sorted(self.leases):
            self.end_lease(lease)
        self.now += MS
        response, _ = self.apply("put", barrier)
        common = {"type": "op", "client": 99, "outcome": "ok", "error": None, "revision": self.revision}
        self.operations.append(
            common | {"id": 1, "kind": "put", "request": barrier, "response": response, "barrier": True,
                      "call_ns": call, "return_ns": self.now + 1}
        )  # fmt: skip
        for member in ("a", "b"):
            self.read_member(common, member)
        return [
            {"format": 1, "seed": 0, "members": ["a", "b"], "prefix": PREFIX, "compaction": "clients",
             "lease_slack_s": SLACK_S},
            *self.watches(), *self.operations, *self.observations(),
        ]  # fmt: skip

    def read_member(self, common: Json, member: str) -> None:
        times = {"call_ns": self.now + 2, "return_ns": self.now + 3, "serializable": True}
        self.operations += [
            common | times | {
                "id": f"final-{member}", "kind": "range", "final": True,
                "request": {"key": PREFIX, "range_end": END, "member": member},
                "response": {"kvs": self.model.range(PREFIX, END)},
            },
            common | times | {
                "id": f"hash-{member}", "kind": "hash", "request": {"member": member},
                "response": {"hash": "h", "applied_index": 7},
            },
        ]  # fmt: skip

    def observations(self) -> list[Json]:
        seen: list[Json] = []
        for term in range(1, 4):
            leader = "ab"[term % 2]
            seen.append({"kind": "role", "member": leader, "term": term, "role": "leader", "time_ns": term})
            seen.append({"kind": "term", "leader": leader, "term": term, "told_by": "b", "time_ns": term})
        for index in range(5):
            seen += [{"kind": "applied", "member": m, "index": index, "hash": f"h{index}"} for m in "ab"]
        return [{"type": "observe"} | each for each in seen]

    def watches(self) -> list[Json]:
        """The complete one, client watches that are resumed after breaks, and one that is refused."""
        lines: list[Json] = [
            {"type": "watch", "watch": 0, "key": "\0", "range_end": "\0", "start_revision": 1, "log": True,
             "call_ns": 0},
            *self.events,
        ]  # fmt: skip
        watch = 1
        for key, end in ((PREFIX, END), (self.keys[0], self.keys[3]), (self.keys[1], "")):
            start = self.rng.randrange(2, self.revision // 4)
            last = start
            for part in range(3):
                last = min(last + self.rng.randrange(40, 80), self.revision)
                lines += self.watch(watch, key, end, start, last, watch - 1 if part else None)
                start, watch = last + 1, watch + 1
        if self.compacted > 1:
            start = self.rng.randrange(1, self.compacted)
            refused = {"type": "watch", "watch": watch, "key": PREFIX, "range_end": END,
                       "start_revision": start, "call_ns": self.now}  # fmt: skip
            lines += [refused, {"type": "observe", "kind": "compacted", "watch": watch,
                                "compact_revision": self.compacted, "time_ns": self.now}]  # fmt: skip
        return lines

    def watch(self, watch: int, key: str, end: str, start: int, last: int, resumes: int | None) -> list[Json]:
        asked: Json = {"type": "watch", "watch": watch, "key": key, "range_end": end, "start_revision": start,
                       "call_ns": 0}  # fmt: skip
        if resumes is not None:
            asked["resumes"] = resumes
        events = [
            event | {"watch": watch}
            for event in self.events
            if start <= event["revision"] <= last
            and (key <= event["key"] < end if end else event["key"] == key)
        ]
        mark = {"type": "event", "watch": watch, "kind": "progress", "revision": last, "recv_ns": self.now}
        return [asked, *events, mark]


def recorded(
    seed: int, operations: int = 400, kind: type[ValidStore] = ValidStore, **options: Any
) -> list[Json]:
    """The lines of one history, header first."""
    store = kind(seed, **options)
    store.run(operations)
    return store.finish()
