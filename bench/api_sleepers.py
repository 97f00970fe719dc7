"""Watches that wait: opened at one API server, and when that is killed, all at once at the next one.

A watch counts as served when the head of its answer has come. None may be answered otherwise, and after the
reconnection every one must be sent the one event that is made then.
"""

from __future__ import annotations

import time
from typing import Any, Final

from bench.api_cluster import check_descriptors, client_context
from bench.api_http import ChunkedBody, Epoll, TlsClient, get
from bench.api_process import Orders, report
from bench.errors import Violation
from bench.loop import Endpoint

_OPENING: Final = 64
_TIMEOUT_S: Final = 200.0
_RETRY_S: Final = 0.2


def run(job: dict[str, Any], orders: Orders) -> None:
    """`job`: endpoints (the first, and the one to go to), watchers, path, at_once."""
    check_descriptors(job["watchers"] + 100)
    sleepers = Sleepers(job)
    started = time.monotonic()
    sleepers.open(job["watchers"] if job["at_once"] else _OPENING)
    report(state="ready", took_s=time.monotonic() - started)
    if len(job["endpoints"]) == 1:
        orders.wait()
        return
    orders.wait()
    sleepers.move()
    report(state="served", last_s=time.monotonic())
    sleepers.until_each_has_an_event()
    report(state="done")
    orders.wait()


class Sleepers:
    """All watches of this process."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._endpoints = [Endpoint(**endpoint) for endpoint in job["endpoints"]]
        self._contexts = [client_context(endpoint) for endpoint in self._endpoints]
        self._hello = get(job["path"])
        self._epoll = Epoll()
        self._at = 0  # which endpoint
        self._moving = False
        self._sleepers = [_Sleeper(self) for _ in range(job["watchers"])]
        self._lost: list[_Sleeper] = []

    def open(self, together: int) -> None:
        """Open every watch, so many at once. Raises Violation: not all are served in time."""
        left, opening = self._sleepers[::-1], list[_Sleeper]()
        deadline = time.monotonic() + _TIMEOUT_S
        while left or opening:
            while left and len(opening) < together:
                sleeper = left.pop()
                self._connect(sleeper)
                opening.append(sleeper)
            self._turn(deadline)
            opening = [sleeper for sleeper in opening if not sleeper.served]

    def move(self) -> None:
        """Wait for the server's end, go to the next one, and wait until every watch is served there."""
        self._moving, self._at = True, 1
        deadline = time.monotonic() + _TIMEOUT_S
        while len(self._lost) < len(self._sleepers):
            self._turn(deadline)
        lost, self._lost = self._lost, []
        for sleeper in lost:
            self._connect(sleeper)
        left = set(lost)
        while left:
            self._turn(deadline)
            again, self._lost = self._lost, []
            for sleeper in again:  # refused or reset: the listener was full
                self._connect(sleeper)
            left = {sleeper for sleeper in left if not sleeper.served}

    def until_each_has_an_event(self) -> None:
        """Raises Violation: some are not sent one."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not all(sleeper.events for sleeper in self._sleepers):
            self._turn(deadline)

    def lost(self, sleeper: _Sleeper, connection: TlsClient) -> None:
        """A connection has ended. Raises Violation: nobody killed its server."""
        if not self._moving:
            raise Violation("the server closed an idle watch")
        self._epoll.remove(connection)
        self._lost.append(sleeper)

    def _connect(self, sleeper: _Sleeper) -> None:
        self._epoll.add(sleeper.connect(self._endpoints[self._at], self._contexts[self._at], self._hello))

    def _turn(self, deadline: float) -> None:
        self._epoll.turn(_RETRY_S)
        if time.monotonic() > deadline:
            served = sum(sleeper.served for sleeper in self._sleepers)
            raise Violation(f"{served} of {len(self._sleepers)} watches were served in {_TIMEOUT_S:g} s")


class _Sleeper:
    """One watch."""

    def __init__(self, sleepers: Sleepers) -> None:
        self._sleepers = sleepers
        self._body = ChunkedBody()
        self.events = 0

    @property
    def served(self) -> bool:
        return self._body.begun

    def connect(self, endpoint: Endpoint, context: Any, hello: bytes) -> TlsClient:
        self._body = ChunkedBody()
        return TlsClient(endpoint, context, hello, self._on_data)

    def _on_data(self, connection: TlsClient, data: bytes) -> None:
        if not data:
            self._body = ChunkedBody()
            self._sleepers.lost(self, connection)
            return
        self.events += self._body.feed(data).count(b'{"type":"MODIFIED"')
