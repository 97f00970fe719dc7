"""A member's metrics ports: /metrics, /livez, /readyz, /health over HTTP(S).

With https a client shows a certificate of one of METRICS_ROLES; who has none is refused before a byte of
a request is read. With http whoever reaches the port may read, as with etcd's flag of this name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog
import trio

from raftkube.clock import Clock
from raftkube.errors import Stopped
from raftkube.net import Address, Listener, Network, PeerIdentity, TlsFiles
from raftkube.net.health import TEXT, not_found
from raftkube.net.http import Request, Response
from raftkube.net.http_server import Admit, serve_http
from raftkube.store.raft.counters import RaftCounters
from raftkube.store.raft.settings import RaftStatus
from raftkube.store.server.health import Health
from raftkube.store.server.metrics import CONTENT_TYPE, Metrics, Sources
from raftkube.store.server.runtime import Runtime
from raftkube.store.server.service import Service
from raftkube.store.server.settings import ServerSettings
from raftkube.wire.store import Range

log = structlog.get_logger(__name__)

METRICS_ROLES: Final = frozenset(("raftkube:store-metrics", "raftkube:store-admin", "raftkube:store-peer"))
_EVERY_KEY: Final = Range(b"\x00", b"\x00", count_only=True)


class MetricsListen(NamedTuple):
    """Where to listen; without TLS files plain HTTP."""

    address: Address
    tls: TlsFiles | None


class RaftFigures(NamedTuple):
    """What a Raft member says and counts at one moment."""

    status: RaftStatus
    counters: RaftCounters


class Monitor:
    """Serves what one member says of itself. `raft` raises Stopped while there is nothing to say."""

    def __init__(
        self,
        service: Service,
        raft: Callable[[], RaftFigures],
        *,
        leaving: Callable[[], bool] = lambda: False,
        clock: Clock,
        settings: ServerSettings,
    ) -> None:
        self._service = service
        self._raft = raft
        self._clock = clock
        self._runtime = Runtime(settings.loop_lag_warn_s)
        self._health = Health(service, settings.health_timeout_s, leaving=leaving)
        self._metrics = Metrics(self._sources)

    async def run(
        self,
        network: Network,
        listens: Sequence[MetricsListen],
        *,
        task_status: trio.TaskStatus[tuple[Address, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; `started` gives the bound addresses. Raises ConfigError: one is taken."""
        async with trio.open_nursery() as nursery:
            bound = []
            for address, tls in listens:
                listener = await network.listen(address, tls)
                admit: Admit | None = None if tls is None else self._admit
                bound.append(await nursery.start(self._serve, listener, admit))
            nursery.start_soon(self._runtime.run)
            task_status.started(tuple(bound))

    async def _serve(
        self, listener: Listener, admit: Admit | None, *, task_status: trio.TaskStatus[Address]
    ) -> None:
        await serve_http(listener, self._handle, clock=self._clock, admit=admit, task_status=task_status)

    def _admit(self, peer: PeerIdentity | None) -> Response | None:
        if peer is not None and METRICS_ROLES.intersection(peer.organizations):
            return None
        shown = ", ".join(peer.organizations) if peer else "no certificate"
        why = f"the metrics port takes certificates with O={' or '.join(sorted(METRICS_ROLES))}, not {shown}"
        log.info("metrics_client_refused", name=peer.common_name if peer else "", error=why)
        return Response(403, f"{why}\n".encode(), TEXT)

    async def _handle(self, request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"405 method not allowed\n", TEXT, headers=[("Allow", "GET, HEAD")])
        if request.path == "/metrics":
            return Response(200, self._metrics.text(), CONTENT_TYPE)
        return await self._health.respond(request.path, request.query) or not_found()

    def _sources(self) -> Sources:
        service = self._service
        try:
            raft: RaftFigures | None = self._raft()
        except Stopped:
            raft = None
        return Sources(
            status=service.status(),
            raft=raft.status if raft else None,
            counters=raft.counters if raft else None,
            activity=service.machine.activity,
            hub=service.hub.figures(),
            runtime=self._runtime,
            keys=service.machine.core.read(_EVERY_KEY).count,  # type: ignore[arg-type]
            events_sent=service.hub.events_sent,
            watches_ended_slow=service.hub.watches_ended_slow,
        )
