"""The process that writes while others watch: `python -m bench.watch_writer` (`bench.link`).

With protocol "bare" it is the bare loop instead (`bench.watch_bare`): it sends the events itself.
"""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from bench.errors import Violation
from bench.job import KEYS, POOL
from bench.kv import make_kv
from bench.latency import Latencies
from bench.link import Orders, ProgressIn, say
from bench.loop import Connection, Loop
from bench.tape import STAMP, Ledger
from bench.watch_bare import BareLoop
from bench.watch_job import Pace, WriterJob, writer_job
from bench.watch_reader import serve

_STALL_S: Final = 30.0
_BATCH_MAX: Final = 1_000  # writes of one send
_BEHIND_MAX_S: Final = 10.0  # an open loop's unanswered writes, before it is given up
_PRELOAD_OUTSTANDING: Final = 1_000


class Payloads:
    """Random keys and values, made before the clock runs; each value says when it was due and its number."""

    def __init__(self, job: WriterJob) -> None:
        rng = random.Random(f"{job.seed}/watch")
        self._values = [rng.randbytes(max(job.value_bytes - STAMP.size, 0)) for _ in range(POOL)]
        self._prefixes = [rng.randrange(len(job.prefixes)) for _ in range(8 * POOL)]
        self._keys = [job.prefixes[p].encode() + b"%08d" % rng.randrange(KEYS) for p in self._prefixes]
        self._count = 0

    def next(self, due: float) -> tuple[int, bytes, bytes]:
        """(number of the prefix, key, value)."""
        count = self._count
        self._count += 1
        at = count % len(self._keys)
        value = STAMP.pack(int(due * 1e9), count & 0xFFFFFFFF) + self._values[count % POOL]
        return self._prefixes[at], self._keys[at], value


class Target(Protocol):
    """Where writes go."""

    on_written: Callable[[int, int, bytes, bytes], None]  # (revision, prefix, key, value)

    @property
    def in_flight(self) -> int:
        """Writes without an answer."""
        ...

    def put(self, dues: list[float]) -> None:
        """Write one for each of these times."""
        ...


class StorePuts:
    """Puts over one connection to the leader."""

    def __init__(self, job: WriterJob, loop: Loop, payloads: Payloads) -> None:
        self._session = make_kv(job.protocol)
        self._payloads = payloads
        self._sent: dict[int, tuple[int, bytes, bytes]] = {}
        self._count = 0
        self.on_written: Callable[[int, int, bytes, bytes], None] = lambda *_: None
        self._connection = Connection(job.endpoint, self._on_data)
        self._connection.send(self._session.hello())
        loop.add(self._connection)

    @property
    def in_flight(self) -> int:
        return len(self._sent)

    def put(self, dues: list[float]) -> None:
        requests = []
        for due in dues:
            prefix, key, value = self._payloads.next(due)
            self._sent[self._count] = (prefix, key, value)
            self._count += 1
            requests.append(self._session.put(key, value))
        self._connection.send(b"".join(requests))

    def _on_data(self, data: bytes) -> bytes:
        out, answers = self._session.feed(data)
        for answer in answers:
            if answer.error:
                raise Violation(f"a put was refused: {answer.error}")
            self.on_written(answer.revision, *self._sent.pop(answer.number))
        return out


class Writer:
    """One measurement's writes. The result counts those acknowledged between `begin_s` and `end_s`."""

    def __init__(self, job: WriterJob) -> None:
        self._job = job
        self._loop = Loop()
        self._orders = Orders()
        self._loop.add(self._orders)
        self._readers = [ProgressIn(fd) for fd in job.progress_fds]
        for reader in self._readers:
            self._loop.add(reader)
        payloads = Payloads(job)
        self._bare = BareLoop(job, self._loop, payloads.next) if job.protocol == "bare" else None
        self._target: Target = self._bare or StorePuts(job, self._loop, payloads)
        self._ledgers: list[Ledger] = []
        self._written = self._counted = self._sent = 0
        self._begin_s = self._end_s = float("inf")
        self._late = Latencies()  # of the writer itself: from due to sent

    def run(self) -> dict[str, Any]:
        """Raises Violation, ConnectionError."""
        first = self._first_revision()
        self._ledger(first)
        self._target.on_written = self._on_written
        self._preload()
        at = self._ledgers[0].revision
        if self._job.preload:
            self._ledger(at)
        say("at", revision=at, first=first, port=self._bare.port if self._bare else 0)
        self._written = 0
        order = self._wait_for_order()
        self._begin_s, self._end_s = order["begin_s"], order["end_s"]
        gc.freeze()
        gc.disable()
        self._write(Pace(self._job.rate, self._job.outstanding, time.monotonic()))
        self._drain()
        return {
            "counted": self._counted, "writes": self._written, "sent": self._sent,
            "late_p99_ms": self._late.percentile_ms(0.99) if self._job.rate else 0.0,
            "written": [dict(zip(self._job.prefixes, one.told(), strict=True)) for one in self._ledgers],
        }  # fmt: skip

    def linger(self) -> None:
        """The bare loop goes on sending what sockets did not take, until it is ended."""
        if self._bare is None:
            return
        self._bare.finished = True
        for reader in self._readers:
            self._loop.remove(reader)
        while True:
            self._loop.turn(0.5)

    def _first_revision(self) -> int:
        """That of one put before all: the watches begin behind it."""
        if self._bare:
            return 1
        found: list[int] = []
        self._target.on_written = lambda revision, *_: found.append(revision)
        self._target.put([time.monotonic()])
        self._drain()
        return found[0]

    def _ledger(self, revision: int) -> None:
        """Record what is written behind `revision`."""
        self._ledgers.append(Ledger(len(self._job.prefixes), revision))

    def _on_written(self, revision: int, prefix: int, key: bytes, value: bytes) -> None:
        self._written += 1
        for ledger in self._ledgers:
            ledger.note(revision, prefix, key, value)
        if self._begin_s <= time.monotonic() < self._end_s:
            self._counted += 1

    def _preload(self) -> None:
        left = self._job.preload
        while left:
            now = time.monotonic()
            count = min(left, _PRELOAD_OUTSTANDING - self._target.in_flight)
            if count > 0:
                self._target.put([now] * count)
                left -= count
            self._loop.turn(0.5)
        self._drain()

    def _wait_for_order(self) -> dict[str, Any]:
        if self._bare:
            self._bare.accept()
        while (order := self._orders.take()) is None:
            self._loop.turn(0.5)
        return order

    def _write(self, pace: Pace) -> None:
        while (now := time.monotonic()) < self._end_s:
            dues = pace.due(now, self._ahead(), _BATCH_MAX)
            if dues:
                self._target.put(dues)
                self._sent += len(dues)
                if self._job.rate:
                    self._late.add(now, dues)
                    self._check_kept()
            self._loop.turn(0.0 if len(dues) == _BATCH_MAX else pace.wait_s(time.monotonic()))

    def _ahead(self) -> int:
        """Writes that some watcher may not have yet."""
        if not self._readers:
            return self._target.in_flight
        counts = [reader.count for reader in self._readers]
        done = min(counts) if self._job.shared else sum(counts)
        return max(self._target.in_flight, self._sent - done)

    def _check_kept(self) -> None:
        if self._target.in_flight > self._job.rate * _BEHIND_MAX_S:
            rate = f"{self._job.rate:g} writes a second"
            raise Violation(f"{rate} are too many: the answers are {_BEHIND_MAX_S:g} s behind")

    def _drain(self) -> None:
        deadline = time.monotonic() + _STALL_S
        while self._target.in_flight:
            self._loop.turn(0.5)
            if time.monotonic() > deadline:
                raise Violation(f"{self._target.in_flight} writes were not answered within {_STALL_S:g} s")


def main() -> int:
    writers: list[Writer] = []

    def run(told: dict[str, Any]) -> dict[str, Any]:
        writers.append(Writer(writer_job(told)))
        return writers[0].run()

    code = serve(run)
    with contextlib.suppress(ConnectionError):
        writers[0].linger()
    return code


if __name__ == "__main__":
    sys.exit(main())
