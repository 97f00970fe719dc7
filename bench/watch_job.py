"""What the runner tells the processes of a watch bench, and how writes are paced."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.errors import BenchError
from bench.loop import Endpoint

_PREFIX: Final = "/bench/"


def prefixes(count: int) -> list[str]:
    """The prefixes that are written and watched."""
    return [_PREFIX] if count == 1 else [f"{_PREFIX}{number:05d}/" for number in range(count)]


@dataclass(frozen=True, slots=True)
class WatchLoad:
    """One measurement. `rate`: writes a second, at fixed times (an open loop); 0: as fast as they are
    delivered, at most `outstanding` ahead of the slowest watcher. `generators`: processes of watchers, beside
    the writer's. `sample`: latencies are taken of every so-manieth watcher."""

    watchers: int
    prefixes: int = 1
    per_connection: int = 1
    generators: int = 2
    outstanding: int = 100
    rate: float = 0.0
    value_bytes: int = 512
    warm_up_s: float = 1.0
    seconds: float = 5.0
    seed: int = 0
    sample: int = 1

    def check(self) -> None:
        """Raises BenchError: a watcher without a prefix, a process without a watcher."""
        if self.prefixes > self.watchers:
            raise BenchError(f"--prefixes {self.prefixes} is more than --watchers {self.watchers}")

    def shares(self) -> list[list[tuple[int, int]]]:
        """Per process of watchers its (prefix, watchers) pairs. One prefix is shared by all processes;
        of several, each is one process's own."""
        count = min(self.generators, self.watchers if self.prefixes == 1 else self.prefixes)
        if self.prefixes == 1:
            return [[(0, _share(self.watchers, count, number))] for number in range(count)]
        return [
            [(p, _share(self.watchers, self.prefixes, p)) for p in range(number, self.prefixes, count)]
            for number in range(count)
        ]


def _share(total: int, parts: int, number: int) -> int:
    return total // parts + (number < total % parts)


@dataclass(frozen=True, slots=True)
class ReaderJob:
    """A process of watchers. `groups`: (prefix, number of watchers). `target`: it is ready once every
    watcher has events up to this revision, 0: once the watches are created. `may_end`: the server may
    end them; else that is a violation."""

    protocol: str
    endpoints: list[Endpoint]
    groups: list[tuple[str, int]]
    start_revision: int
    per_connection: int
    contiguous: bool
    sample: int
    progress_fd: int
    target: int = 0
    may_end: bool = False


@dataclass(frozen=True, slots=True)
class WriterJob:
    """The process that writes, or the bare loop that sends (`protocol` "bare": its `endpoint` names its own
    certificates, `connections` of readers carry `watches` together). `shared`: all readers watch the one
    prefix, and the slowest counts; else each has its own. `preload`: so many writes before the watches are
    opened, recorded apart."""

    protocol: str
    endpoint: Endpoint
    prefixes: list[str]
    shared: bool
    outstanding: int
    rate: float
    value_bytes: int
    seed: int
    progress_fds: list[int] = field(default_factory=list)
    connections: int = 0
    watches: int = 0
    preload: int = 0


def to_json(job: ReaderJob | WriterJob) -> dict[str, Any]:
    """For the process's standard input."""
    return asdict(job)


def reader_job(told: dict[str, Any]) -> ReaderJob:
    groups = [(prefix, count) for prefix, count in told["groups"]]
    endpoints = [Endpoint(**endpoint) for endpoint in told["endpoints"]]
    return ReaderJob(**told | {"groups": groups, "endpoints": endpoints})


def writer_job(told: dict[str, Any]) -> WriterJob:
    return WriterJob(**told | {"endpoint": Endpoint(**told["endpoint"])})


class Pace:
    """When writes are due: in an open loop at fixed times, whether earlier ones were answered or not, so that
    a stall counts for every write that fell into it; in a closed one as soon as there is room."""

    def __init__(self, rate: float, outstanding: int, start_s: float) -> None:
        self._rate, self._outstanding, self._start_s = rate, outstanding, start_s
        self._sent = 0

    def due(self, now: float, ahead: int, most: int) -> list[float]:
        """The times at which the writes that shall leave now were due; at most `most`."""
        if not self._rate:
            count = min(max(self._outstanding - ahead, 0), most)
            return [now] * count
        passed_s = now - self._start_s
        count = min(int(passed_s * self._rate) + 1 - self._sent if passed_s >= 0 else 0, most)
        dues = [self._start_s + (self._sent + n) / self._rate for n in range(count)]
        self._sent += count
        return dues

    def wait_s(self, now: float) -> float:
        """How long nothing is due."""
        if not self._rate:
            return 0.5
        return min(max(self._start_s + self._sent / self._rate - now, 0.0), 0.5)
