"""Probes that go over the network, against real ports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from raftkube.clock import SystemClock
from raftkube.kubelet.core.pods import Container
from raftkube.kubelet.prober import Prober
from raftkube.kubelet.runtimes.fake import FakeRuntime
from raftkube.net import Address
from raftkube.net.http import Request, Response
from raftkube.net.http_server import serve_http
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng

POD: dict[str, Any] = {"metadata": {"name": "p", "uid": "u"}, "spec": {}}
RUNS = Container("c", "u", "main", 0, "i", "i", 0.0)


class Probed:
    """A prober, and what it told."""

    def __init__(self) -> None:
        runtime = FakeRuntime(clock=SystemClock(), rng=seeded_rng(1))
        self.failures: list[str] = []
        self.changed = trio.Event()
        self.failed = trio.Event()
        self.prober = Prober(runtime, TcpNetwork(), lambda uid: self.changed.set(), self._failure)

    def _failure(self, pod: dict[str, Any], message: str) -> None:
        self.failures.append(message)
        self.failed.set()


@asynccontextmanager
async def probed(**probes: Any) -> AsyncIterator[Probed]:
    made = Probed()
    spec = {"name": "main", "ports": [{"name": "http", "containerPort": 1}], **probes}
    async with trio.open_nursery() as nursery:
        await nursery.start(made.prober.run)
        made.prober.attend(POD, spec, RUNS, "127.0.0.1")
        yield made
        made.prober.drop([RUNS.id])
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def web_server() -> AsyncIterator[int]:
    """Answers 200 at /ok, 500 elsewhere."""

    async def handler(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(200 if request.path == "/ok" else 500)

    async with trio.open_nursery() as nursery:
        listener = await TcpNetwork().listen(Address("127.0.0.1", 0), None)
        address = await nursery.start(serve_http, listener, handler)
        yield address.port
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "action",
    [
        lambda port: {"httpGet": {"path": "/ok", "port": port}},
        lambda port: {"tcpSocket": {"port": port}},
        lambda port: {"tcpSocket": {"port": str(port), "host": "127.0.0.1"}},
    ],
    ids=["http", "tcp", "tcp-host"],
)
async def test_a_good_answer_makes_it_ready(action: Any) -> None:
    async with web_server() as port, probed(readinessProbe=action(port)) as it:
        assert not it.prober.ready(RUNS)
        with trio.fail_after(10):
            await it.changed.wait()
        assert it.prober.ready(RUNS)
        assert it.failures == []


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda port: {"httpGet": {"path": "/bad", "port": port}}, "HTTP probe failed with statuscode: 500"),
        (lambda port: {"tcpSocket": {"port": 1}}, "Connection refused"),
        (lambda port: {"httpGet": {"path": "/", "port": "http"}}, "Connection refused"),
        (lambda port: {"tcpSocket": {"port": "none"}}, "port 'none' is not a port of the container"),
        (lambda port: {"exec": {"command": ["true"]}}, "the container does not run"),
        (lambda port: {"grpc": {"port": 1}}, "no exec, httpGet or tcpSocket"),
    ],
    ids=["http-500", "refused", "named-port", "unknown-port", "exec", "none"],
)
async def test_a_bad_answer_gives_it_up(action: Any, message: str) -> None:
    async with web_server() as port, probed(livenessProbe=action(port) | {"failureThreshold": 1}) as it:
        with trio.fail_after(10):
            await it.changed.wait()
        assert it.prober.failed(RUNS)
        assert it.failures[0].startswith("Liveness probe failed: ")
        assert message in it.failures[0]


async def test_nothing_is_ready_before_its_startup_probe_has_passed() -> None:
    async with web_server() as port:
        startup = {"tcpSocket": {"port": 1}, "failureThreshold": 30, "periodSeconds": 1}
        ready = {"tcpSocket": {"port": port}}
        async with probed(startupProbe=startup, readinessProbe=ready) as it:
            with trio.fail_after(10):
                await it.failed.wait()
            assert not it.prober.started(RUNS)
            assert not it.prober.ready(RUNS)
            assert not it.prober.failed(RUNS)


async def test_without_probes_what_runs_is_ready() -> None:
    async with probed() as it:
        assert it.prober.started(RUNS)
        assert it.prober.ready(RUNS)
        assert not it.prober.failed(RUNS)
