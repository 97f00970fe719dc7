"""One measurement of a watch bench: a writer, processes of watchers, and what the server used meanwhile."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.errors import BenchError, Violation
from bench.latency import Latencies
from bench.link import Child
from bench.loop import Endpoint
from bench.peers import Certificates, Side
from bench.usage import Usage, machine_cpu_s, usage
from bench.watch_job import ReaderJob, WatchLoad, WriterJob, prefixes, to_json

_HEAR_S: Final = 120.0
_SETUP_PER_WATCHER_S: Final = 0.05
_DRAIN_S: Final = 180.0
_LEAD_S: Final = 0.2  # so that every process knows the times before they come


@dataclass(frozen=True, slots=True)
class Server:
    """What is measured: the members of `side`, or the bare loop (None)."""

    side: Side | None
    leader: int
    certificates: Certificates | None

    @property
    def name(self) -> str:
        return self.side.name if self.side else "bare"

    def pids(self, writer: Child) -> list[int]:
        return self.side.pids() if self.side else [writer.pid]

    def writer_endpoint(self) -> Endpoint:
        if self.side:
            return self.side.endpoint(self.leader)
        tls = self.certificates
        return (
            Endpoint("127.0.0.1", 0, tls.ca, tls.server_cert, tls.server_key)
            if tls
            else Endpoint("127.0.0.1", 0)
        )

    def reader_endpoints(self, port: int) -> list[Endpoint]:
        if self.side:
            return self.side.endpoints()
        tls = self.certificates
        if tls:
            return [Endpoint("127.0.0.1", port, tls.ca, tls.client_cert, tls.client_key)]
        return [Endpoint("127.0.0.1", port)]


class Crew:
    """The processes of one measurement; `close` ends them."""

    def __init__(self, server: Server, load: WatchLoad, *, preload: int = 0) -> None:
        self.server, self.load = server, load
        self._groups = load.shares()
        self._names = prefixes(load.prefixes)
        pipes = [os.pipe() for _ in self._groups]
        self._progress = [write for _, write in pipes]  # each is closed here once its reader has it
        self.readers: list[Child] = []
        self.others: list[Child] = []
        protocol = server.side.protocol if server.side else "bare"
        self._reader_protocol = "ours" if protocol == "bare" else protocol
        job = WriterJob(
            protocol=protocol, endpoint=server.writer_endpoint(), prefixes=self._names,
            shared=load.prefixes == 1, outstanding=load.outstanding, rate=load.rate,
            value_bytes=load.value_bytes, seed=load.seed, progress_fds=[read for read, _ in pipes],
            connections=self._connections(), watches=load.watchers, preload=preload,
        )  # fmt: skip
        self.writer = Child("bench.watch_writer", to_json(job), job.progress_fds)
        for fd in job.progress_fds:
            os.close(fd)
        self.revision = self.first = self.port = 0

    def _connections(self) -> int:
        sums = [sum(count for _, count in groups) for groups in self._groups]
        return sum(-(-count // self.load.per_connection) for count in sums)

    def start(self, timeout_s: float = _HEAR_S) -> None:
        """Wait until the writer has a revision behind which watches begin."""
        told = self.writer.hear("at", timeout_s)
        self.revision, self.first, self.port = told["revision"], told["first"], told["port"]

    def open(self) -> float:
        """Open all watches behind the writer's revision; the seconds that it took."""
        for groups in self._groups:
            self.readers.append(self._reader(groups, self.revision + 1, self._progress[0]))
            os.close(self._progress.pop(0))
        return max(self.hear_ready(child) for child in self.readers)

    def hear_ready(self, child: Child) -> float:
        timeout_s = _HEAR_S + _SETUP_PER_WATCHER_S * self.load.watchers
        return float(child.hear("ready", timeout_s)["took_s"])

    def join(self, watchers: int, start_revision: int, *, target: int = 0, may_end: bool = False) -> Child:
        """One more process, of watchers that the writer does not wait for."""
        extra = self._reader([(0, watchers)], start_revision, -1, target=target, may_end=may_end)
        self.others.append(extra)
        return extra

    def _reader(
        self,
        groups: list[tuple[int, int]],
        start_revision: int,
        fd: int,
        *,
        target: int = 0,
        may_end: bool = False,
    ) -> Child:
        job = ReaderJob(
            protocol=self._reader_protocol, endpoints=self.server.reader_endpoints(self.port),
            groups=[(self._names[prefix], count) for prefix, count in groups],
            start_revision=start_revision, per_connection=self.load.per_connection,
            contiguous=self.load.prefixes == 1, sample=self.load.sample, progress_fd=fd,
            target=target, may_end=may_end,
        )  # fmt: skip
        return Child("bench.watch_reader", to_json(job), [fd] if fd >= 0 else [])

    def tell(self, order: dict[str, Any]) -> None:
        for child in [*self.readers, self.writer]:
            child.tell(order)

    def finish(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """(the writer's result, the readers'), all verified. Raises Violation: a reader's goes first, for the
        writer only sees that it is gone."""
        try:
            written = self.writer.hear("result", self.load.seconds + _DRAIN_S)
        except (Violation, BenchError):
            for child in self.readers:
                with contextlib.suppress(BenchError):
                    child.hear("result", 0.5)
            raise
        for child in self.readers:
            child.tell({"written": written["written"][-1]})
        return written, [child.hear("result", _DRAIN_S) for child in self.readers]

    def close(self) -> None:
        for child in [*self.readers, *self.others, self.writer]:
            child.close()
        for fd in self._progress:
            os.close(fd)


@contextlib.contextmanager
def crew(server: Server, load: WatchLoad, *, preload: int = 0) -> Iterator[Crew]:
    """A crew whose writer has written what is to be there before. Raises Violation with the side's name."""
    made = Crew(server, load, preload=preload)
    try:
        made.start()
        yield made
    except Violation as error:
        raise Violation(f"{server.name}: {error}") from error
    finally:
        made.close()


class Meter:
    """Processor time and memory of the server and of the generators over one window."""

    def __init__(self, made: Crew) -> None:
        self._server = made.server.pids(made.writer)
        children = [*made.readers, *made.others, *([made.writer] if made.server.side else [])]
        self._generators = [child.pid for child in children]
        self._start = self._read()
        self._started = time.monotonic()

    def _read(self) -> tuple[Usage, list[float], float, float]:
        generators = [usage([pid]).cpu_s for pid in self._generators]
        return usage(self._server), generators, machine_cpu_s(), usage([os.getpid()]).cpu_s

    def told(self) -> dict[str, float]:
        """Since the meter was made. `generator_busy`: the busiest generator's share of one processor;
        `others_busy`: other programs' share of all processors."""
        took_s = time.monotonic() - self._started
        (server0, each0, all0, own0), (server, each, everything, own) = self._start, self._read()
        spent = [after - before for before, after in zip(each0, each, strict=True)]
        cpu_s = server.cpu_s - server0.cpu_s
        generators_s = sum(spent)
        others_s = everything - all0 - cpu_s - generators_s - (own - own0)
        return {
            "cpu_s": round(cpu_s, 2), "rss_mb": server.rss_mb, "peak_mb": server.peak_mb,
            "generator_cpu_s": round(generators_s, 2),
            "generator_busy": round(max(spent) / took_s, 3),
            "others_busy": round(max(others_s, 0.0) / took_s / (os.cpu_count() or 1), 3),
        }  # fmt: skip


def measure(
    server: Server, load: WatchLoad, *, meanwhile: Callable[[Crew], None] | None = None
) -> dict[str, Any]:
    """One run of `load`. `meanwhile` is called as the measured time begins. Raises Violation, BenchError."""
    with crew(server, load) as made:
        before = usage(server.pids(made.writer))
        opened_s = made.open()
        idle = usage(server.pids(made.writer))
        begin_s = time.monotonic() + _LEAD_S + load.warm_up_s
        made.tell({"begin_s": begin_s, "end_s": begin_s + load.seconds})
        sleep_until(begin_s)
        meter = Meter(made)
        if meanwhile:
            meanwhile(made)
        sleep_until(begin_s + load.seconds)
        told = meter.told()
        written, read = made.finish()
    return (
        summed(load, written, read)
        | _per_million(told, read)
        | {
            "kb_per_watcher": round((idle.rss_mb - before.rss_mb) * 1e3 / load.watchers, 1),
            "opened_s": opened_s,
        }
    )


def _per_million(told: dict[str, float], read: list[dict[str, Any]]) -> dict[str, float]:
    millions = max(sum(one["counted"] for one in read), 1) / 1e6
    costs = ("cpu_s", "generator_cpu_s")
    return told | {f"{name}_per_million": round(told[name] / millions, 3) for name in costs}


def summed(load: WatchLoad, written: dict[str, Any], read: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates and latencies over all processes of watchers."""
    latencies = Latencies()
    for one in read:
        latencies.merge(one["latencies"])
    return {
        "rate": round(sum(one["counted"] for one in read) / load.seconds, 1),
        **latencies.told(),
        "puts_per_s": round(written["counted"] / load.seconds, 1),
        "verified": sum(one["verified"] for one in read),
        "late_p99_ms": written["late_p99_ms"],
    }


def sleep_until(moment_s: float) -> None:
    """Of the monotonic clock."""
    time.sleep(max(moment_s - time.monotonic(), 0.0))


def at_rate(load: WatchLoad, puts_per_s: float) -> WatchLoad:
    """The same load with writes at fixed times, every watcher's latencies taken."""
    return replace(load, rate=puts_per_s, sample=1)
