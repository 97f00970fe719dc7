"""Patches pods, one after another: as fast as the watchers follow, or at a rate.

Every patch leaves a mark in its pod (`api_pods.mark`): which write it was and when it was sent. What was
acknowledged, and at which revision, is reported in full: the others are judged by it.
"""

from __future__ import annotations

import random
import time
from typing import Any, Final

import orjson

from bench import api_pods
from bench.api_cluster import client_context
from bench.api_http import Epoll, Exchange, patch
from bench.api_pods import MARK, View
from bench.api_process import Orders, report
from bench.api_progress import Progress
from bench.errors import Violation
from bench.loop import Endpoint

_STALL_S: Final = 30.0
_POLL_S: Final = 0.001


def run(job: dict[str, Any], orders: Orders) -> None:
    """`job`: endpoints, pods, connections, rate (0: as fast as may be), outstanding (events ahead of the
    slowest watcher; 0: any), progress (a file), watchers (its slots), view, until_ns, seed."""
    load = _Load(job)
    while time.monotonic_ns() < job["until_ns"]:
        load.turn()
        order = orders.poll()
        if order is not None:
            break
    load.drain()
    report(acks=load.acks, took_s=load.took)


class _Load:
    def __init__(self, job: dict[str, Any]) -> None:
        self._numbers = list(range(job["pods"]))
        random.Random(f"{job['seed']}/pods").shuffle(self._numbers)
        self._view = View(*job["view"])
        self._rate: float = job["rate"]
        self._outstanding: int = job["outstanding"]
        self._progress = Progress(job["progress"], job["watchers"]) if job["watchers"] else None
        self._epoll = Epoll()
        endpoints = [Endpoint(**endpoint) for endpoint in job["endpoints"]]
        contexts = [client_context(endpoint) for endpoint in endpoints]
        self._sent = self._events = 0
        self.acks: list[tuple[int, int, int, int]] = []  # revision, pod, write, acknowledged (ns)
        self.took: list[float] = []
        self._idle: list[_Writer] = []
        self._busy: set[_Writer] = set()
        for count in range(job["connections"]):
            at = count % len(endpoints)
            self._idle.append(_Writer(self, endpoints[at], contexts[at], self._epoll))
        while not all(writer.ready for writer in self._idle):
            self._epoll.turn(1.0)
        self._started = time.perf_counter()

    def turn(self) -> None:
        """Send what is due; take what has come."""
        while self._idle and self._may_send():
            number = self._numbers[self._sent % len(self._numbers)]
            writer = self._idle.pop()
            self._busy.add(writer)
            writer.write(number, self._sent)
            self._sent += 1
            self._events += self._view.shows(number)
        self._epoll.turn(_POLL_S)

    def drain(self) -> None:
        """Wait for every answer. Raises Violation: some never come."""
        deadline = time.perf_counter() + _STALL_S
        while self._busy:
            self._epoll.turn(0.1)
            if time.perf_counter() > deadline:
                raise Violation(f"{len(self._busy)} patches were not answered within {_STALL_S:g} s")

    def done(self, writer: _Writer, revision: int, number: int, sequence: int, took_s: float) -> None:
        self.acks.append((revision, number, sequence, time.monotonic_ns()))
        self.took.append(took_s)
        self._busy.discard(writer)
        self._idle.append(writer)

    def _may_send(self) -> bool:
        if self._rate:
            return self._sent < (time.perf_counter() - self._started) * self._rate
        if self._progress is None or not self._outstanding:
            return True
        return self._events - self._progress.slowest() < self._outstanding


class _Writer:
    """One connection, one patch at a time."""

    def __init__(self, load: _Load, endpoint: Endpoint, context: Any, epoll: Epoll) -> None:
        self._load = load
        self._exchange = Exchange(endpoint, context, epoll, self._on_answer)
        self._at = (0, 0, 0.0)

    @property
    def ready(self) -> bool:
        return self._exchange.ready

    def write(self, number: int, sequence: int) -> None:
        body = {"metadata": {"annotations": {MARK: api_pods.mark(sequence, time.monotonic_ns())}}}
        self._at = (number, sequence, time.perf_counter())
        self._exchange.ask(patch(api_pods.path(number), orjson.dumps(body)))

    def _on_answer(self, status: int, body: bytes) -> None:
        if status != 200:
            raise Violation(f"a patch was answered {status}: {body[:200].decode()}")
        number, sequence, started = self._at
        revision = int(orjson.loads(body)["metadata"]["resourceVersion"])
        self._load.done(self, revision, number, sequence, time.perf_counter() - started)
