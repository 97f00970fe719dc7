"""A TCP balancer in front of the API servers, for clients that know one address only (kubectl).

It looks into nothing: TLS goes through. A backend that refuses or does not answer its health check is
left out until it answers again; connections to it are closed so that clients come back to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
import trio

from raftkube.net import Address, Connection, Network
from raftkube.net.tcp import serve

log = structlog.get_logger(__name__)

_CHECK_PERIOD_S: Final = 1.0
_CHECK_TIMEOUT_S: Final = 2.0
_SILENT_CHECKS_MAX: Final = 2  # a busy machine may miss one
_DIAL_TIMEOUT_S: Final = 1.0


class Balancer:
    """Spreads connections over the backends that are healthy, the least loaded first."""

    def __init__(self, network: Network, backends: Sequence[Address]) -> None:
        self._network = network
        self._backends = tuple(backends)
        self._connections: dict[Address, set[trio.CancelScope]] = {backend: set() for backend in backends}
        self._ill: set[Address] = set()

    async def run(
        self, listen: Address, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; `started` gives the bound address."""
        listener = await self._network.listen(listen, None)
        async with trio.open_nursery() as nursery:
            for backend in self._backends:
                nursery.start_soon(self._watch_health, backend)
            task_status.started(await nursery.start(serve, listener, self._handle))

    async def _handle(self, client: Connection) -> None:
        for backend in self._candidates():
            server = await self._dial(backend)
            if server is not None:
                await self._splice(client, server, backend)
                return
        log.warning("no_backend", backends=[str(backend) for backend in self._backends])

    def _candidates(self) -> list[Address]:
        """Healthy ones first, those with fewer connections before others; the ill ones as a last try."""
        return sorted(
            self._backends, key=lambda backend: (backend in self._ill, len(self._connections[backend]))
        )

    async def _dial(self, backend: Address) -> Connection | None:
        with trio.move_on_after(_DIAL_TIMEOUT_S):
            try:
                return await self._network.connect(backend, None)
            except OSError:
                self._mark(backend, healthy=False)
        return None

    async def _splice(self, client: Connection, server: Connection, backend: Address) -> None:
        try:
            async with trio.open_nursery() as nursery:
                scopes = self._connections[backend]
                scopes.add(nursery.cancel_scope)
                nursery.start_soon(_copy, client, server, nursery.cancel_scope)
                nursery.start_soon(_copy, server, client, nursery.cancel_scope)
        finally:
            self._connections[backend].discard(nursery.cancel_scope)
            server.abort()

    async def _watch_health(self, backend: Address) -> None:
        """A TLS handshake that the API server answers is the check: a stopped process fails it."""
        silent = 0
        while True:
            answered = None
            with trio.move_on_after(_CHECK_TIMEOUT_S):
                answered = await self._check(backend)
            silent = silent + 1 if answered is None else 0
            if answered is not None or silent >= _SILENT_CHECKS_MAX:
                self._mark(backend, healthy=bool(answered))
            await trio.sleep(_CHECK_PERIOD_S)

    async def _check(self, backend: Address) -> bool:
        """True: it answers; False: it refuses. A backend that is stopped never returns."""
        try:
            connection = await self._network.connect(backend, None)
        except OSError:
            return False
        try:
            # Not TLS: a live server says so with an alert, or hangs up; a stopped one stays silent.
            await connection.send_all(b"GET /livez HTTP/1.1\r\n\r\n")
            await connection.receive_some()
        except trio.BrokenResourceError:
            pass
        finally:
            connection.abort()
        return True

    def _mark(self, backend: Address, *, healthy: bool) -> None:
        if healthy == (backend not in self._ill):
            return
        if healthy:
            self._ill.discard(backend)
        else:
            self._ill.add(backend)
            for scope in self._connections[backend]:
                scope.cancel()
        log.info("backend_changed", backend=str(backend), healthy=healthy)


async def _copy(source: Connection, target: Connection, scope: trio.CancelScope) -> None:
    """Bytes one way; the end of one way ends both (TLS has no use for half-open connections)."""
    try:
        while data := await source.receive_some():
            await target.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()


async def run_balancer(
    network: Network,
    listen: Address,
    backends: Sequence[Address],
    *,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The balancer as a component. Source of the idea: an HAProxy in `mode tcp` with checks."""
    await Balancer(network, backends).run(listen, task_status=task_status)
