"""The workload of one process: clients that put, get, delete, run transactions, hold leases, contend for
leadership, compact and watch, and write down what they asked, what they were told, and when.

Every value is unique, so that a write of unknown outcome can be found in the log, and every transaction
that writes puts something. Everything random is drawn from the seed, a source for each actor.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import trio

from chaos.operations import OPERATION_TIMEOUT_S, Json, run_operation
from chaos.recording import Recorder
from chaos.watching import PREFIX, PREFIX_END, record_watch
from raftkube.errors import StoreError
from raftkube.store.client import StoreClient
from raftkube.wire.store import Range

__all__ = ["PREFIX", "PREFIX_END", "Workload", "WorkloadOptions", "record_watch", "run_operation"]

# Kinds and their shares: 65 % may write.
_MIX: Final = (("put", 40), ("get", 25), ("txn", 15), ("delete", 9), ("delete_range", 1), ("range", 10))
_LARGE_TXN: Final = 0.12  # of the transactions
_LARGE_TXN_KEYS: Final = (4, 8)


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """`clients` tasks over `keys` keys; `first_client` makes ids unique over processes, the other actors
    take those behind the clients'.

    `lease_clients` grant leases, attach keys, renew and let go; `candidates` contend for one key of this
    process and write under it with a fence; their TTLs are 1 to `lease_ttl_max_s`. One client compacts
    every `compact_every_s` or so (0: never) at a revision that was the newest `compact_age_s` before:
    watches that lag by less are not hurt.
    """

    clients: int
    first_client: int
    keys: int
    watches: int
    seed: int
    think_s: float = 0.008
    lease_clients: int = 1
    candidates: int = 2
    lease_ttl_max_s: int = 3
    compact_every_s: float = 8.0
    compact_age_s: float = 20.0


class Workload:
    """Runs until cancelled or `stopping` is set; in-flight operations are finished first.

    `numbered`: another client of the same store that numbers its writes (exactly once); every second client
    uses it.
    """

    def __init__(
        self,
        store: StoreClient,
        recorder: Recorder,
        options: WorkloadOptions,
        numbered: StoreClient | None = None,
    ) -> None:
        self._store = store
        self._numbered = numbered
        self._recorder = recorder
        self._options = options
        self._compacted = 0  # the highest revision that was compacted at, as far as known here
        self._keys = tuple(self._key(number) for number in range(options.keys))
        self.stopping = trio.Event()

    async def run(self) -> None:
        """All clients and watches; returns when the clients have finished after `stopping`."""
        async with trio.open_nursery() as watches:
            for number in range(self._options.watches):
                watches.start_soon(self._watch, number)
            async with trio.open_nursery() as clients:
                for offset, role in enumerate(self._roles()):
                    clients.start_soon(role, self._actor(offset))
            watches.cancel_scope.cancel()

    def _roles(self) -> list[Callable[[_Actor], Awaitable[None]]]:
        options = self._options
        return [
            *[self._client] * options.clients,
            *[self._lease_client] * options.lease_clients,
            *[self._candidate] * options.candidates,
            *[self._compactor] * (options.compact_every_s > 0),
        ]

    def _actor(self, offset: int) -> _Actor:
        client = self._options.first_client + offset
        numbered = self._numbered is not None and offset % 2 == 1
        store = self._numbered if numbered and self._numbered is not None else self._store
        marks = {"numbered": True} if numbered else {}
        return _Actor(store, self._recorder, client, self._options.seed, marks)

    # Clients of keys.

    def _key(self, number: int) -> str:
        """Their names sort as their numbers do."""
        return f"{PREFIX}{number:0{max(2, len(str(self._options.keys + 5)))}d}"

    async def _client(self, actor: _Actor) -> None:
        rng = actor.rng
        while not self.stopping.is_set():
            kind = rng.choices([kind for kind, _ in _MIX], [share for _, share in _MIX])[0]
            request = self._request(kind, actor.next_value(), rng)
            await actor.do("delete" if kind == "delete_range" else kind, request)
            await trio.sleep(rng.uniform(0, 2 * self._options.think_s))

    def _request(self, kind: str, value: str, rng: random.Random) -> Json:
        key = rng.choice(self._keys)
        if kind == "put":
            return {"key": key, "value": value}
        if kind == "range":
            return {"key": PREFIX, "range_end": PREFIX_END}
        if kind == "delete_range":
            low = rng.randrange(len(self._keys))
            return {"key": self._keys[low], "range_end": self._key(low + rng.randrange(1, 5))}
        if kind == "txn":
            large = rng.random() < _LARGE_TXN
            return self._transaction(
                rng.randint(*_LARGE_TXN_KEYS) if large else rng.randint(1, 2), value, rng
            )
        return {"key": key}

    def _transaction(self, size: int, value: str, rng: random.Random) -> Json:
        """Compare the version of a key, then change `size` keys; it puts at least one."""
        keys = rng.sample(self._keys, min(size, len(self._keys)))
        success: list[Json] = [{"kind": "put", "key": keys[0], "value": f"{value}-0"}]
        for number, key in enumerate(keys[1:], 1):
            item: Json = {"kind": "delete", "key": key}
            if rng.random() < 0.7:
                item = {"kind": "put", "key": key, "value": f"{value}-{number}"}
            success.append(item)
        compares = [
            {"key": key, "target": "version", "result": ">", "operand": rng.randrange(3)}
            for key in (keys[:1] if rng.random() < 0.8 else [keys[0], rng.choice(self._keys)])
        ]
        return {"compares": compares, "success": success, "failure": [{"kind": "get", "key": keys[0]}]}

    # Leases.

    async def _lease_client(self, actor: _Actor) -> None:
        """Grant, attach, renew for a while, then revoke or let it end."""
        rng = actor.rng
        while not self.stopping.is_set():
            lease, ttl_s = actor.next_lease(), rng.randint(1, self._options.lease_ttl_max_s)
            if (await actor.do("lease_grant", {"lease": lease, "ttl_s": ttl_s}))["outcome"] == "fail":
                await self._pause(0.5)
                continue
            mine = [f"{PREFIX}lease-{actor.client}-{number}" for number in range(rng.randint(1, 3))]
            if rng.random() < 0.3:
                mine.append(rng.choice(self._keys))
            for key in mine:
                await actor.do("put", {"key": key, "value": actor.next_value(), "lease": lease})
            for _ in range(rng.randrange(5)):
                await self._pause(ttl_s * rng.uniform(0.2, 0.6))
                renewed = await actor.do("lease_keep_alive", {"lease": lease})
                if renewed["outcome"] == "fail":
                    break
            if rng.random() < 0.4:
                await actor.do("lease_revoke", {"lease": lease})
            else:
                await self._pause(ttl_s * rng.uniform(0.5, 2.0))
            await actor.do("range", {"key": mine[0], "range_end": f"{PREFIX}lease."})

    async def _candidate(self, actor: _Actor) -> None:
        """Win the key, write under it, lose it; now and then go on writing after the lease has ended."""
        rng, key = actor.rng, f"{PREFIX}leader-{self._options.first_client}"
        while not self.stopping.is_set():
            lease, ttl_s = actor.next_lease(), rng.randint(1, self._options.lease_ttl_max_s)
            await actor.do("lease_grant", {"lease": lease, "ttl_s": ttl_s})
            token = await self._campaign(actor, key, lease)
            if token:
                renewals = rng.randint(1, 6)
                for turn in range(renewals + 6):
                    if turn < renewals:
                        await actor.do("lease_keep_alive", {"lease": lease})
                    if not await self._fenced_write(actor, key, token):
                        break
                    await self._pause(ttl_s * rng.uniform(0.2, 0.5))
            await self._pause(ttl_s * rng.uniform(0.1, 0.7))

    async def _campaign(self, actor: _Actor, key: str, lease: int) -> int:
        """The token (the key's create revision) if the key was won, else 0."""
        value = actor.next_value()
        won = await actor.do(
            "txn",
            {
                "compares": [{"key": key, "target": "create", "result": "=", "operand": 0}],
                "success": [{"kind": "put", "key": key, "value": value, "lease": lease}],
                "failure": [{"kind": "get", "key": key}],
            },
        )
        if won["outcome"] == "ok":
            return int(won["revision"]) if won["response"]["succeeded"] else 0
        if won["outcome"] == "unknown":
            read = await actor.do("get", {"key": key})
            found = read["response"]["kv"] if read["outcome"] == "ok" else None
            return int(found[2]) if found and found[1] == value else 0
        return 0

    async def _fenced_write(self, actor: _Actor, key: str, token: int) -> bool:
        """A write under the token; False when the store says that the leadership has passed."""
        data = f"{PREFIX}leader-{self._options.first_client}-data"
        written = await actor.do(
            "txn",
            {
                "compares": [{"key": key, "target": "create", "result": "=", "operand": token}],
                "success": [{"kind": "put", "key": data, "value": actor.next_value()}],
                "failure": [{"kind": "get", "key": key}],
            },
            fence={"key": key, "create_revision": token},
        )
        return written["outcome"] != "ok" or bool(written["response"]["succeeded"])

    # Compaction.

    async def _compactor(self, actor: _Actor) -> None:
        """Look where the store is, and compact at what it was a while ago."""
        seen: deque[tuple[int, int]] = deque()
        age_ns = int(self._options.compact_age_s * 1e9)
        while not self.stopping.is_set():
            await self._pause(self._options.compact_every_s * actor.rng.uniform(0.5, 1.5))
            looked = await actor.do("get", {"key": self._keys[0]})
            if looked["outcome"] != "ok":
                continue
            seen.append((looked["return_ns"], looked["revision"]))
            target = 0
            while seen and seen[0][0] <= looked["return_ns"] - age_ns:
                target = seen.popleft()[1]
            if target > self._compacted:
                done = await actor.do("compact", {"revision": target})
                if done["outcome"] == "ok" or done["error"] == "compacted":
                    self._compacted = target

    # Watches.

    async def _watch(self, number: int) -> None:
        """One watch after another: from a recent revision on, with breaks after which it is resumed; now and
        then from a revision that is compacted."""
        options = self._options
        rng = random.Random(f"{options.seed}/watch/{options.first_client + number}")
        # Numbers that no other watch of this or another process has.
        ids = count(options.first_client * 1_000_000 + number, options.watches)
        while True:
            if self._compacted > 2 and rng.random() < 0.25:
                with trio.move_on_after(2):
                    start = rng.randrange(1, self._compacted)
                    await record_watch(self._store, self._recorder, next(ids), PREFIX, PREFIX_END, start)
            key, range_end = self._slice(rng)
            start = max(1, await self._revision() - rng.randrange(50))
            await self._watch_with_breaks(ids, key, range_end, start, rng)

    def _slice(self, rng: random.Random) -> tuple[str, str]:
        """Ten keys in a row, or all."""
        low = rng.randrange(self._options.keys)
        if rng.random() < 0.2:
            return PREFIX, PREFIX_END
        return self._key(low), self._key(min(low + 10, self._options.keys))

    async def _watch_with_breaks(
        self, ids: Iterator[int], key: str, range_end: str, start: int, rng: random.Random
    ) -> None:
        resumes: int | None = None
        reached = start - 1

        def on_revision(revision: int) -> None:
            nonlocal reached
            reached = max(reached, revision)

        for _ in range(rng.choice((1, 1, 2, 4))):
            watch = next(ids)
            with trio.move_on_after(rng.uniform(3, 10)):
                await record_watch(
                    self._store, self._recorder, watch, key, range_end, reached + 1,
                    resumes=resumes, resume=rng.random() < 0.5, on_revision=on_revision,
                )  # fmt: skip
            resumes = watch

    async def _revision(self) -> int:
        """The store's newest, once it answers."""
        while True:
            try:
                with trio.fail_after(OPERATION_TIMEOUT_S):
                    return (await self._store.range(Range(b"\0", b"\0", count_only=True))).revision
            except (StoreError, trio.TooSlowError):
                await trio.sleep(0.1)

    async def _pause(self, seconds: float) -> None:
        """Shorter if the workload is to stop."""
        with trio.move_on_after(seconds):
            await self.stopping.wait()


class _Actor:
    """One client: its chance, its numbers, and what it does under its name."""

    def __init__(
        self, store: StoreClient, recorder: Recorder, client: int, seed: int, marks: dict[str, Any]
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._marks = marks
        self._number = 0
        self._made = 0
        self.client = client
        self.rng = random.Random(f"{seed}/{client}")

    def next_value(self) -> str:
        """One that nobody else writes."""
        self._made += 1
        return f"c{self.client}-{self._made}"

    def next_lease(self) -> int:
        """The id of a lease that nobody else grants."""
        self._made += 1
        return self.client * 1_000_000 + self._made

    async def do(self, kind: str, request: Json, **marks: Any) -> Json:
        """Carry out and record one operation; its record."""
        self._number += 1
        return await run_operation(
            self._store, self._recorder, self.client, self._number, kind, request, **self._marks, **marks
        )
