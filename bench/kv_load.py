"""The generator's loads of puts and gets on single keys, every answer checked.

load:  put `keys` different keys once each.
get:   linearizable gets of keys that were loaded before.
mixed: a share of gets among puts; also at a fixed rate, with a report every window.

A get is a violation if it finds less than what was acknowledged before it was sent (a stale read), or at
some revision another value than was written there.
"""

from __future__ import annotations

import random
import time
from collections import deque
from typing import Any, Final

from bench.errors import Violation
from bench.job import POOL, Job, latencies, result, say
from bench.kv import Answer, make_kv
from bench.loop import Connection, Loop
from bench.ours import PREFIX

_LOAD_OUTSTANDING: Final = 400
_STALL_S: Final = 20.0
_MARK: Final = 12  # a value begins with so many bytes that no other value begins with
_VERSIONS_KEPT: Final = 64


class Written:
    """What was written where, as far as gets may still find it."""

    def __init__(self) -> None:
        self.acknowledged: dict[bytes, int] = {}
        self._marks: dict[bytes, dict[int, bytes]] = {}
        self._early: dict[tuple[bytes, int], bytes] = {}  # found before the put was acknowledged

    def acknowledge(self, key: bytes, revision: int, mark: bytes) -> None:
        """A put's answer. Raises Violation: a get found something else at that revision."""
        early = self._early.pop((key, revision), mark)
        if early != mark:
            raise Violation(f"a get found {early!r} at revision {revision}, written was {mark!r}")
        marks = self._marks.setdefault(key, {})
        if revision in marks:
            raise Violation(f"two puts were given revision {revision}")
        marks[revision] = mark
        if len(marks) > _VERSIONS_KEPT:
            del marks[min(marks)]
        if revision > self.acknowledged.get(key, 0):
            self.acknowledged[key] = revision

    def found(self, key: bytes, floor: int, answer: Answer) -> None:
        """A get's answer; `floor` was acknowledged before it was sent. Raises Violation."""
        if answer.revision < floor:
            raise Violation(f"a stale read: revision {answer.revision} of a key acknowledged at {floor}")
        mark = (answer.value or b"")[:_MARK]
        known = self._marks.get(key, {}).get(answer.revision)
        if known is None:
            known = self._early.setdefault((key, answer.revision), mark)
        if answer.revision and known != mark:
            raise Violation(f"a get found {mark!r} at revision {answer.revision}, written was {known!r}")

    def check(self) -> None:
        """Nothing was found that nobody wrote. Raises Violation."""
        left = {at: mark for at, mark in self._early.items() if at[1]}
        if left:
            raise Violation(f"{len(left)} gets found what was never acknowledged, for one {next(iter(left))}")


class Took:
    """Latencies of the time that is measured, gets and puts apart."""

    def __init__(self) -> None:
        self.gets: list[float] = []
        self.puts: list[float] = []
        self.begin_s, self.end_s = float("inf"), float("inf")

    def note(self, start: float, *, get: bool) -> None:
        now = time.perf_counter()
        if self.begin_s <= now < self.end_s:
            (self.gets if get else self.puts).append(now - start)


class KvClient:
    """One connection with puts and gets in flight."""

    def __init__(self, job: Job, number: int, written: Written, took: Took) -> None:
        rng = random.Random(f"{job.seed}/{number}")
        self._values = [rng.randbytes(max(job.value_bytes - _MARK, 0)) for _ in range(POOL)]
        self._keys = [PREFIX + b"%08d" % rng.randrange(job.keys) for _ in range(8 * POOL)]
        self._reads = [rng.random() < job.reads for _ in range(8 * POOL)]
        self._number, self._count = number, 0
        self._written, self._took = written, took
        self._session = make_kv(job.protocol)
        self._sent: dict[int, tuple[float, bytes, bytes, int]] = {}  # start, key, mark or b"", floor
        self.connection = Connection(job.writer, self._on_data)
        self.connection.send(self._session.hello())

    @property
    def in_flight(self) -> int:
        return len(self._sent)

    def send(self, how_many: int) -> None:
        """So many more of the mix, as one write."""
        requests = []
        for _ in range(how_many):
            at = self._count % len(self._keys)
            requests.append(self._request(self._keys[at], get=self._reads[at]))
        self.connection.send(b"".join(requests))

    def load(self, keys: list[bytes]) -> None:
        """Put each of these keys."""
        self.connection.send(b"".join([self._request(key, get=False) for key in keys]))

    def _request(self, key: bytes, *, get: bool) -> bytes:
        count = self._count
        self._count += 1
        now = time.perf_counter()
        if get:
            self._sent[count] = (now, key, b"", self._written.acknowledged.get(key, 0))
            return self._session.get(key)
        mark = b"%02d%010d" % (self._number, count)
        self._sent[count] = (now, key, mark, 0)
        return self._session.put(key, mark + self._values[count % POOL])

    def _on_data(self, data: bytes) -> bytes:
        out, answers = self._session.feed(data)
        for answer in answers:
            start, key, mark, floor = self._sent.pop(answer.number)
            if answer.error:
                raise Violation(f"a request was refused: {answer.error}")
            self._took.note(start, get=not mark)
            if mark:
                self._written.acknowledge(key, answer.revision, mark)
            else:
                self._written.found(key, floor, answer)
        return out


def run_kv(job: Job) -> dict[str, Any]:
    """The load of `job`, and what it measured. Raises Violation."""
    loop, written, took = Loop(), Written(), Took()
    clients = [KvClient(job, number, written, took) for number in range(min(job.clients, job.outstanding))]
    for client in clients:
        loop.add(client.connection)
    loaded_s = _load(job, loop, clients) if job.reads or job.kind == "load" else 0.0
    told: dict[str, Any] = {"loaded_s": round(loaded_s, 2)}
    if job.kind != "load":
        told |= _measure(job, loop, clients, took)
    _drain(loop, clients)
    loop.close()
    written.check()
    return told | ({"rate": round(job.keys / loaded_s, 1)} if job.kind == "load" else {})


def _load(job: Job, loop: Loop, clients: list[KvClient]) -> float:
    """Put every key once; the seconds it took."""
    started = time.perf_counter()
    share = _LOAD_OUTSTANDING // len(clients)
    keys = deque(PREFIX + b"%08d" % number for number in range(job.keys))
    while keys:
        for client in clients:
            room = min(share - client.in_flight, len(keys))
            if room > 0:
                client.load([keys.popleft() for _ in range(room)])
        loop.turn(0.5)
    _drain(loop, clients)
    return time.perf_counter() - started


def _drain(loop: Loop, clients: list[KvClient]) -> None:
    """Wait for every answer. Raises Violation: some never come."""
    deadline = time.perf_counter() + _STALL_S
    while left := sum(client.in_flight for client in clients):
        loop.turn(0.5)
        if time.perf_counter() > deadline:
            raise Violation(f"{left} requests were not answered within {_STALL_S:g} s")


def _measure(job: Job, loop: Loop, clients: list[KvClient], took: Took) -> dict[str, Any]:
    pace = _Pace(job, clients)
    took.begin_s = time.perf_counter() + job.warm_up_s
    took.end_s = took.begin_s + job.seconds
    window_s = took.begin_s + job.window_s
    gets: list[float] = []
    puts: list[float] = []
    cpu_s = time.process_time()
    say("measuring")
    while (now := time.perf_counter()) < took.end_s:
        pace.send(now)
        loop.turn(0.002 if job.rate else 0.5)
        if job.window_s and now >= window_s:
            window_s += job.window_s
            count = len(took.gets) + len(took.puts)
            say("window", **result(count, job.window_s, took.gets + took.puts))
            gets += took.gets
            puts += took.puts
            took.gets, took.puts = [], []
    gets += took.gets
    puts += took.puts
    told = result(len(gets) + len(puts), job.seconds, gets + puts)
    told["generator_cpu_s"] = round(time.process_time() - cpu_s, 2)
    if job.reads and puts:
        told |= latencies(gets, "get_") | latencies(puts, "put_")
    return told


class _Pace:
    """How many requests are sent when: as many as `outstanding` allows, or no more than `rate` asks."""

    def __init__(self, job: Job, clients: list[KvClient]) -> None:
        count = len(clients)
        self._clients, self._rate = clients, job.rate
        self._shares = [job.outstanding // count + (n < job.outstanding % count) for n in range(count)]
        self._started = time.perf_counter()
        self._sent = 0

    def send(self, now: float) -> None:
        due = int((now - self._started) * self._rate) - self._sent if self._rate else 1 << 30
        for client, share in zip(self._clients, self._shares, strict=True):
            room = min(share - client.in_flight, due)
            if room > 0:
                client.send(room)
                self._sent += room
                due -= room
