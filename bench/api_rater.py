"""Clients that ask one thing after another, each on connections that stay: how many a second, how long each.

The work and its checks are scripts (`bench.api_rate_work`); here they are given sockets and a clock. A
latency runs from before a request is sent until its answer is complete; the checks do not count into it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.api_cluster import check_descriptors, client_context
from bench.api_http import Epoll, Exchange
from bench.api_process import Orders, cpu_s, report
from bench.api_rate_work import Answer, Ask, Owner, Script, replay
from bench.errors import Violation
from bench.latency import Latencies
from bench.loop import Endpoint

_STALL_S: Final = 60.0
_POLL_S: Final = 0.05


def run(job: dict[str, Any], orders: Orders) -> None:
    """`job`: endpoints, clients (their numbers), padding, seed; for a bare loop request and answer (files).

    An order is {do: prepare, measure, check or keep, ...}: see `_Clients`. Each is answered with a report.
    """
    check_descriptors(2 * len(job["clients"]) + 100)
    clients = _Clients(job)
    report(state="ready")
    while True:
        order = orders.wait()
        if order["do"] == "measure":
            report(**clients.measure(order))
        elif order["do"] == "keep":
            clients.keep(Path(order["folder"]))
            report(state="kept")
        else:
            clients.to_the_end(order)
            report(verified=clients.verified)


class _Clients:
    """All of this process."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._epoll = Epoll()
        endpoints = [Endpoint(**endpoint) for endpoint in job["endpoints"]]
        places = [(endpoint, client_context(endpoint)) for endpoint in endpoints]
        self._replay = [Path(job[key]).read_bytes() for key in ("request", "answer") if job.get(key)]
        self._owners = [Owner(number, padding=job["padding"], seed=job["seed"]) for number in job["clients"]]
        self._clients = [_Client(number, places, self._epoll) for number in job["clients"]]
        self._wait_for(lambda: all(client.ready for client in self._clients))

    @property
    def verified(self) -> int:
        return sum(owner.verified for owner in self._owners)

    def to_the_end(self, order: dict[str, Any]) -> None:
        """Every client's script to its end. do: prepare, or check. Raises Violation."""
        for client, owner in zip(self._clients, self._owners, strict=True):
            client.begin(owner.prepare() if order["do"] == "prepare" else owner.check())
        self._wait_for(lambda: all(client.ended for client in self._clients))

    def measure(self, order: dict[str, Any]) -> dict[str, Any]:
        """Ask, and count what is answered between two moments (monotonic): `begin_s`, and `end_s` or when the
        first client has nothing left to do. verb: what is asked.
        """
        for owner in self._owners:
            owner.verified = 0
        for client, owner in zip(self._clients, self._owners, strict=True):
            client.begin(replay(*self._replay) if self._replay else owner.script(order["verb"]))
        self._turn_until(order["begin_s"])
        took = Latencies()
        begin_s, begin_cpu_s = time.monotonic(), cpu_s()
        for client in self._clients:
            client.count_into(took)
        self._turn_until(order["end_s"])
        seconds, used_s = time.monotonic() - begin_s, cpu_s() - begin_cpu_s
        for client in self._clients:
            client.stop()
        self._wait_for(lambda: all(client.idle for client in self._clients))
        return {
            "count": took.count, "seconds": seconds, "pairs": took.pairs, "generator_cpu_s": used_s,
            "writes": sum(client.uncounted for client in self._clients),
        }  # fmt: skip

    def keep(self, folder: Path) -> None:
        """The last request that was measured and the body of its answer, of one client, as files."""
        ask, answer = self._clients[0].last
        (folder / "request").write_bytes(ask.data)
        (folder / "answer").write_bytes(answer.body)

    def _turn_until(self, moment_s: float) -> None:
        while (left_s := moment_s - time.monotonic()) > 0:
            self._epoll.turn(min(left_s, _POLL_S))
            if any(client.ended for client in self._clients):
                return

    def _wait_for(self, done: Callable[[], bool]) -> None:
        """Raises Violation: an answer does not come."""
        deadline = time.monotonic() + _STALL_S
        while not done():
            self._epoll.turn(_POLL_S)
            if time.monotonic() > deadline:
                raise Violation(f"requests were not answered within {_STALL_S:g} s")


class _Client:
    """One script at a time; its requests go to one API server, those for elsewhere to the next one."""

    def __init__(self, number: int, places: list[tuple[Endpoint, Any]], epoll: Epoll) -> None:
        self._exchanges = [
            Exchange(*places[(number + step) % len(places)], epoll, self._on_answer)
            for step in range(min(len(places), 2))
        ]
        self._script: Script | None = None
        self._ask: Ask | None = None  # that is on the way
        self._last: tuple[Ask, Answer] | None = None
        self._sent_s = 0.0
        self._stopping = False
        self._took: Latencies | None = None
        self.uncounted = 0

    @property
    def ready(self) -> bool:
        return all(exchange.ready for exchange in self._exchanges)

    @property
    def idle(self) -> bool:
        return self._ask is None

    @property
    def ended(self) -> bool:
        """The script has nothing left to ask."""
        return self._script is None

    def begin(self, script: Script) -> None:
        self._script, self._stopping, self._took, self.uncounted = script, False, None, 0
        self._last = None
        self._next(lambda: next(script))

    def count_into(self, took: Latencies) -> None:
        """From now on."""
        self._took, self.uncounted = took, 0

    def stop(self) -> None:
        """Ask nothing more; what is on the way is still checked."""
        self._stopping, self._took = True, None

    @property
    def last(self) -> tuple[Ask, Answer]:
        """What was asked last of what counts, and answered. Raises Violation: nothing was."""
        if self._last is None:
            raise Violation("a client was not answered once in that time")
        return self._last

    def _on_answer(self, status: int, body: bytes) -> None:
        now_s = time.monotonic()
        ask, answer = self._ask, Answer(status, body)
        if ask is None or self._script is None:
            raise Violation("an answer came to no request")
        self._ask = None
        script = self._script
        if ask.counted:
            self._last = (ask, answer)
            if self._took is not None:
                self._took.add(now_s, (self._sent_s,))
        else:
            self.uncounted += 1
        self._next(lambda: script.send(answer))

    def _next(self, step: Callable[[], Ask]) -> None:
        try:
            ask = step()
        except StopIteration:
            self._script = None
            return
        if self._stopping:
            return
        self._ask, self._sent_s = ask, time.monotonic()
        self._exchanges[-1 if ask.elsewhere else 0].ask(ask.data)
