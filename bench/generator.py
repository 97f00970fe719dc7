"""A load generator as a process: `python -m bench.generator`, a job as JSON on standard input, its result
as JSON on standard output.

put:   keeps `outstanding` puts in flight over `clients` connections; each acknowledgement's revision is
       checked to be new.
load, get, mixed: see `kv_load`; watches: see `watch_reader`.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from bench.errors import Violation
from bench.job import KEYS, POOL, Job, result, say
from bench.kv import make_kv
from bench.kv_load import run_kv
from bench.loop import Connection, Endpoint, Loop
from bench.ours import PREFIX


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


_RUNS: Final[dict[str, Callable[[Job], dict[str, Any]]]] = {
    "put": run_put, "load": run_kv, "get": run_kv, "mixed": run_kv,
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
