"""A load generator as a process: `python -m bench.generator`, a job as JSON on standard input, its result
as JSON on standard output.

put:   keeps `outstanding` puts in flight over `clients` connections; each acknowledgement's revision is
       checked to be new.
watch: opens `watchers` watches of one prefix, a connection each (or `per_connection` on one), and writes
       with at most `outstanding` puts ahead of the slowest watcher; every watcher's every event is checked.
load, get, mixed: see `kv_load`.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from bench.errors import Violation
from bench.etcd import EtcdWatch
from bench.job import KEYS, POOL, Job, result, say
from bench.kv import make_kv
from bench.kv_load import run_kv
from bench.loop import Connection, Endpoint, Loop
from bench.ours import PREFIX, OursWatch
from bench.session import Expected, WatchSession

_SETUP_TIMEOUT_S: Final = 60.0
_STALL_S: Final = 20.0


def make_watch(protocol: str, watches: int, expected: Expected) -> WatchSession:
    return OursWatch(watches, expected) if protocol == "ours" else EtcdWatch(watches, expected)


class Writer:
    """One connection's puts: random values, made before the clock runs, unique by a counter in front."""

    def __init__(self, job: Job, number: int, on_ack: Callable[[float, int, bytes, bytes], None]) -> None:
        rng = random.Random(f"{job.seed}/{number}")
        self._values = [rng.randbytes(max(job.value_bytes - 12, 0)) for _ in range(POOL)]
        self._keys = [PREFIX + b"%08d" % rng.randrange(KEYS) for _ in range(POOL)]
        self._number = number
        self._session = make_kv(job.protocol)
        self._on_ack = on_ack
        self._sent: dict[int, tuple[float, bytes, bytes]] = {}
        self._count = 0
        self.connection = Connection(job.writer, self._on_data)
        self.connection.send(self._session.hello())

    @property
    def in_flight(self) -> int:
        return len(self._sent)

    def put(self, how_many: int) -> None:
        """Send `how_many` more, as one write."""
        requests = []
        for _ in range(how_many):
            count = self._count
            self._count += 1
            key, value = (
                self._keys[count % POOL],
                b"%02d%010d" % (self._number, count) + self._values[count % POOL],
            )
            self._sent[count] = (time.perf_counter(), key, value)
            requests.append(self._session.put(key, value))
        self.connection.send(b"".join(requests))

    def _on_data(self, data: bytes) -> bytes:
        out, answers = self._session.feed(data)
        for answer in answers:
            if answer.error:
                raise Violation(f"a put was refused: {answer.error}")
            start, key, value = self._sent.pop(answer.number)
            self._on_ack(start, answer.revision, key, value)
        return out


def run_put(job: Job) -> dict[str, Any]:
    """Closed loop over all connections."""
    loop, took, revisions = Loop(), [], set[int]()
    window = {"from": float("inf"), "to": float("inf")}

    def on_ack(start: float, revision: int, key: bytes, value: bytes) -> None:
        now = time.perf_counter()
        if revision in revisions:
            raise Violation(f"two puts were given revision {revision}")
        revisions.add(revision)
        if window["from"] <= now < window["to"]:
            took.append(now - start)

    clients = min(job.clients, job.outstanding)
    writers = [Writer(job, number, on_ack) for number in range(clients)]
    shares = [job.outstanding // clients + (number < job.outstanding % clients) for number in range(clients)]
    for writer in writers:
        loop.add(writer.connection)
    started = time.perf_counter()
    window["from"] = started + job.warm_up_s
    window["to"] = window["from"] + job.seconds
    say("measuring")
    while time.perf_counter() < window["to"]:
        for writer, share in zip(writers, shares, strict=True):
            if writer.in_flight < share:
                writer.put(share - writer.in_flight)
        loop.turn(0.5)
    loop.close()
    return result(len(took), job.seconds, took)


def run_watch(job: Job) -> dict[str, Any]:
    """Write as far ahead of the slowest watcher as `outstanding` allows; the rate is what is sustained."""
    loop, expected = Loop(), Expected()
    sessions = _open_watches(job, loop, expected)
    starts: dict[int, float] = {}
    acked = 0

    def on_ack(start: float, revision: int, key: bytes, value: bytes) -> None:
        nonlocal acked
        acked += 1
        expected.written[revision] = (key, value)
        starts[revision] = start

    writer = Writer(job, 0, on_ack)
    loop.add(writer.connection)
    run = _WatchRun(sessions, expected, starts)
    started = time.perf_counter()
    run.begin_s = started + job.warm_up_s
    end_s = run.begin_s + job.seconds
    say("measuring")
    while time.perf_counter() < end_s:
        # A write may be delivered before it is acknowledged: both bound what is sent.
        ahead = max(writer.in_flight, writer.in_flight + acked - run.delivered_to_all())
        if ahead < job.outstanding:
            writer.put(job.outstanding - ahead)
        loop.turn(0.5)
        run.note()
    measured = run.count
    while writer.in_flight or run.delivered_to_all() < acked:
        loop.turn(0.5)
        run.note()
        run.check_progress()
    loop.close()
    expected.check()
    total = sum(session.delivered for session in sessions)
    if total != acked * job.watchers:
        raise Violation(
            f"{total} events were delivered, {acked} writes to {job.watchers} watchers make others"
        )
    told = result(measured, job.seconds, run.took)
    return told | {"puts_per_s": round(measured / job.seconds / job.watchers, 1), "verified": total}


def _open_watches(job: Job, loop: Loop, expected: Expected) -> list[WatchSession]:
    sessions: list[WatchSession] = []
    left = job.watchers
    while left:
        watches = min(job.per_connection, left)
        left -= watches
        session = make_watch(job.protocol, watches, expected)
        connection = Connection(job.endpoints[len(sessions) % len(job.endpoints)], session.feed)
        connection.send(session.hello())
        loop.add(connection)
        sessions.append(session)
    deadline = time.perf_counter() + _SETUP_TIMEOUT_S
    while sum(session.created for session in sessions) < job.watchers:
        loop.turn(0.5)
        if time.perf_counter() > deadline:
            raise Violation("the watches were not all created in time")
    return sessions


class _WatchRun:
    """What has been delivered to all, and how long after its write the slowest watcher had it."""

    def __init__(self, sessions: list[WatchSession], expected: Expected, starts: dict[int, float]) -> None:
        self._sessions = sessions
        self._expected = expected
        self._starts = starts
        self._first = 0  # the first revision that was seen; every later one is a write of ours
        self._reached = 0
        self._delivered = self._delivered_before = 0
        self._last = time.perf_counter()
        self.begin_s = float("inf")
        self.count = 0
        self.took: list[float] = []

    def delivered_to_all(self) -> int:
        """How many writes every watcher has."""
        return self._reached - self._first + 1 if self._reached else 0

    def note(self) -> None:
        """Take stock: called once a turn of the loop."""
        now = time.perf_counter()
        delivered = sum(session.delivered for session in self._sessions)
        if delivered == self._delivered:
            return
        self._delivered, self._last = delivered, now
        self._first = self._first or min(self._expected.seen)
        reached = min(session.reached for session in self._sessions)
        for revision in range(max(self._reached + 1, self._first), reached + 1):
            start = self._starts.pop(revision, None)
            if start is not None and start >= self.begin_s:
                self.took.append(now - start)
        self._reached = reached
        if now >= self.begin_s:
            self._delivered_before = self._delivered_before or delivered
            self.count = delivered - self._delivered_before

    def check_progress(self) -> None:
        """Raises Violation: nothing has been delivered for a long time."""
        if time.perf_counter() - self._last > _STALL_S:
            raise Violation(f"no event was delivered for {_STALL_S:g} s while some are missing")


_RUNS: Final[dict[str, Callable[[Job], dict[str, Any]]]] = {
    "put": run_put, "watch": run_watch, "load": run_kv, "get": run_kv, "mixed": run_kv,
}  # fmt: skip


def main() -> int:
    told = orjson.loads(sys.stdin.buffer.readline())
    job = Job(
        **told
        | {"writer": Endpoint(**told["writer"]), "endpoints": [Endpoint(**e) for e in told["endpoints"]]}
    )
    try:
        before = time.process_time()
        measured = _RUNS[job.kind](job)
        measured.setdefault("generator_cpu_s", round(time.process_time() - before, 2))
    except (Violation, ConnectionError, OSError) as error:
        print(orjson.dumps({"violation": f"{type(error).__name__}: {error}"}).decode(), flush=True)
        return 1
    print(orjson.dumps(measured).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
