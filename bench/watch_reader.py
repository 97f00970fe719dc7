"""A process of watchers: `python -m bench.watch_reader`, orders and results as JSON lines (`bench.link`).

It opens its watches, verifies every event of every one of them, tells the writer through a pipe how many
events all of them have, and in the end compares its tapes with the writer's record.
"""

from __future__ import annotations

import gc
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from bench.errors import Violation
from bench.latency import Latencies
from bench.link import Orders, ProgressOut, say
from bench.loop import Endpoint, Loop, client_context, connect
from bench.tape import Cursor, Tape
from bench.watch_job import ReaderJob, reader_job
from bench.watch_sessions import EtcdWatch, OursWatch, Place, WatchSession, parse_etcd, parse_ours

_SETUP_TIMEOUT_S: Final = 60.0
_SETUP_PER_WATCHER_S: Final = 0.02
_STALL_S: Final = 30.0
_READ: Final = bytearray(1_048_576)  # one for all connections: what arrives is handled at once
_PLAIN: Final = bytearray(1_310_720)
_RECORD: Final = 16_384


class WatchConnection:
    """A connection that reads into one shared buffer, with TLS in memory: OpenSSL on a socket would take two
    system calls a record."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None, session: WatchSession) -> None:
        self._sock = connect(endpoint)
        self.session = session
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=endpoint.host)
            _shake_hands(self._sock, self._tls, self._incoming, self._outgoing)
        self._sock.setblocking(False)
        self._out = bytearray()
        self.fd = self._sock.fileno()
        self.blocked: set[int] = set()
        self.send(session.hello())

    def send(self, data: bytes) -> None:
        """Send, or keep what the socket does not take."""
        if self._tls is not None:
            if data:
                self._tls.write(data)
            data = self._outgoing.read()
        self._out += data
        self.flush()

    @property
    def waiting(self) -> bool:
        return bool(self._out)

    def flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            self.blocked.add(self.fd)

    def readable(self) -> None:
        """What one read gives. Raises ConnectionError: the server hung up; Violation."""
        try:
            count = self._sock.recv_into(_READ)
        except BlockingIOError:
            return
        if not count:
            raise ConnectionError("the server closed a watch's connection")
        data = memoryview(_READ)[:count]
        if self._tls is not None:
            data = self._decrypt(data)
        answer = self.session.feed(data) if data else b""
        if answer or (self._tls is not None and self._outgoing.pending):
            self.send(answer)

    def _decrypt(self, data: memoryview) -> memoryview:
        assert self._tls is not None
        self._incoming.write(data)
        plain, end = memoryview(_PLAIN), 0
        try:
            while read := self._tls.read(_RECORD, plain[end:]):
                end += int(read)
        except ssl.SSLWantReadError:
            pass
        return plain[:end]

    def close(self) -> None:
        self._sock.close()


def _shake_hands(
    sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> None:
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            data = sock.recv(65_536)
            if not data:
                raise ConnectionError("the server closed a connection during its handshake")
            incoming.write(data)
        else:
            sock.sendall(outgoing.read())
            return


class Reader:
    """All watches of this process. Deliveries and latencies are those between `begin_s` and `end_s`."""

    def __init__(self, job: ReaderJob) -> None:
        self._job = job
        self._loop = Loop()
        self._orders = Orders()
        self._loop.add(self._orders)
        self._progress = ProgressOut(job.progress_fd)
        self._connections: list[WatchConnection] = []
        self._tapes: dict[str, Tape] = {}
        self._cursors: list[Cursor] = []
        self._latencies = Latencies()
        self._begin_s = self._end_s = float("inf")
        self.delivered = self.counted = 0
        self._watches = sum(count for _, count in job.groups)

    def run(self) -> dict[str, Any]:
        """Until the runner says what was written. Raises Violation, ConnectionError."""
        started = time.monotonic()
        self._open()
        opened_s = time.monotonic() - started
        self._until_ready()
        say("ready", took_s=round(time.monotonic() - started, 3), opened_s=round(opened_s, 3))
        gc.freeze()
        gc.disable()
        written = self._read_on()
        self._drain(written)
        return self._result(time.monotonic() - started)

    def _open(self) -> None:
        make, parse = (OursWatch, parse_ours) if self._job.protocol == "ours" else (EtcdWatch, parse_etcd)
        places: list[Place] = []
        for prefix, count in self._job.groups:
            tape = Tape(self._job.start_revision, parse, contiguous=self._job.contiguous)
            self._tapes[prefix] = tape
            for _ in range(count):
                cursor = Cursor(tape, len(places))
                self._cursors.append(cursor)
                places.append(Place(cursor, prefix.encode(), self._job.start_revision))
        endpoints = self._job.endpoints
        contexts = [client_context(endpoint) if endpoint.ca else None for endpoint in endpoints]
        size = self._job.per_connection
        for number, start in enumerate(range(0, len(places), size)):
            session: WatchSession = make(places[start : start + size], self._note)
            at = number % len(endpoints)
            connection = WatchConnection(endpoints[at], contexts[at], session)
            self._connections.append(connection)
            self._loop.add(connection)

    def _until_ready(self) -> None:
        deadline = time.monotonic() + _SETUP_TIMEOUT_S + _SETUP_PER_WATCHER_S * self._watches
        while not self._ready():
            self._turn(0.5)
            if time.monotonic() > deadline:
                raise Violation("the watches were not all created, or did not catch up, in time")

    def _ready(self) -> bool:
        if sum([connection.session.created for connection in self._connections]) < self._watches:
            return False
        if not self._job.target:
            return True
        return self._done() >= self._job.target - self._job.start_revision + 1

    def _note(self, cursor: Cursor, count: int) -> None:
        self.delivered += count
        now = time.monotonic()
        if self._begin_s <= now < self._end_s:
            self.counted += count
            if not cursor.number % self._job.sample:
                self._latencies.add(now, cursor.tape.dues(cursor.count - count, cursor.count))

    def _done(self) -> int:
        return sum([tape.done for tape in self._tapes.values()])

    def _turn(self, timeout_s: float) -> None:
        self._loop.turn(timeout_s)
        self._progress.tell(self._done())

    def _read_on(self) -> dict[str, str]:
        """Each prefix's digest, as soon as the runner tells them."""
        while True:
            while order := self._orders.take():
                if "begin_s" in order:
                    self._begin_s, self._end_s = order["begin_s"], order["end_s"]
                elif "stall" in order or "resume" in order:
                    for connection in self._connections:
                        (self._loop.pause if "stall" in order else self._loop.resume)(connection)
                elif order.get("window"):
                    say("window", latencies=self._latencies.pairs, counted=self.counted)
                    self._latencies, self.counted = Latencies(), 0
                else:
                    written: dict[str, str] = order["written"]
                    return written
            self._turn(0.5)

    def _drain(self, written: dict[str, str]) -> None:
        """Until every watcher has everything, or was ended. Raises Violation: something is missing."""
        counts = {prefix: int(written[prefix].split()[0]) for prefix in self._tapes}
        before, deadline = self.delivered, time.monotonic() + _STALL_S
        while not self._complete(counts):
            self._turn(0.5)
            if self.delivered != before:
                before, deadline = self.delivered, time.monotonic() + _STALL_S
            if time.monotonic() > deadline:
                raise Violation(f"no event was delivered for {_STALL_S:g} s while some are missing")
        if not self._ended():
            self._compare(written)

    def _complete(self, counts: dict[str, int]) -> bool:
        if all(tape.done >= counts[prefix] for prefix, tape in self._tapes.items()):
            return True
        ended = self._ended()
        wanted = {tape: counts[prefix] for prefix, tape in self._tapes.items()}
        return bool(ended) and all(
            cursor.number in ended or cursor.count >= wanted[cursor.tape] for cursor in self._cursors
        )

    def _ended(self) -> dict[int, int]:
        """Watches that the server has ended, with the last revision that it said they have."""
        ended: dict[int, int] = {}
        for connection in self._connections:
            ended |= connection.session.ended
        return ended

    def _compare(self, written: dict[str, str]) -> None:
        for prefix, tape in self._tapes.items():
            if tape.digest.told != written[prefix]:
                raise Violation(
                    f"under {prefix} {tape.digest.told} was delivered, {written[prefix]} written "
                    "(count and hash of revisions, keys and values)"
                )

    def _result(self, took_s: float) -> dict[str, Any]:
        ended = self._ended()
        if not self._job.may_end and ended:
            raise Violation(f"{len(ended)} watches that were read all the time were ended")
        for number, revision in ended.items():
            has = self._job.start_revision - 1 + self._cursors[number].count
            if self._job.contiguous and has != revision:
                raise Violation(f"a watch was ended at revision {revision} and has all up to {has}")
        return {
            "counted": self.counted, "verified": self.delivered, "latencies": self._latencies.pairs,
            "ended": len(ended), "ended_at": sorted(set(ended.values())), "took_s": round(took_s, 3),
            "reached": sorted({tape.revision for tape in self._tapes.values()}),
        }  # fmt: skip


def serve(run: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """A generator's main: the job is the first line of standard input."""
    try:
        say("result", **run(_first_line()))
    except (Violation, ConnectionError, OSError) as error:
        say("violation", text=f"{type(error).__name__}: {error}")
        return 1
    return 0


def _first_line() -> dict[str, Any]:
    """Unbuffered: what follows is for the loop."""
    line = bytearray()
    while not line.endswith(b"\n"):
        line += os.read(0, 1)
    told: dict[str, Any] = orjson.loads(line)
    return told


if __name__ == "__main__":
    sys.exit(serve(lambda told: Reader(reader_job(told)).run()))
