"""/healthz, /livez, /readyz and /metrics of a component, on a port of its own.

Without certificate and key it speaks plain HTTP, and only on loopback. Port 0 means none, as upstream.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import trio
from prometheus_client import CollectorRegistry, generate_latest

from raftkube.errors import ConfigError
from raftkube.net import Address, Network, TlsFiles
from raftkube.net.http import Request, Response
from raftkube.net.http_server import serve_http

_HEALTH_PATHS = ("/healthz", "/livez", "/readyz")


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """Where to listen; `tls` if there is a certificate to show. Raises ConfigError: plain HTTP to others."""

    address: Address
    tls: TlsFiles | None = None

    def __post_init__(self) -> None:
        if self.address.port and self.tls is None and not _is_loopback(self.address.host):
            raise ConfigError(
                f"--bind-address {self.address.host} needs --tls-cert-file and --tls-private-key-file; "
                "without them only loopback is served"
            )


async def serve_health(
    network: Network,
    settings: HealthSettings,
    registry: CollectorRegistry,
    *,
    task_status: trio.TaskStatus[Address | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `started` gives the bound address (None: port 0, nothing is served).

    Raises ConfigError: the port is taken.
    """
    if not settings.address.port:
        task_status.started(None)
        return

    async def handle(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        if request.path in _HEALTH_PATHS:
            return Response(200, b"ok", content_type="text/plain; charset=utf-8")
        if request.path == "/metrics":
            text = generate_latest(registry)
            return Response(200, text, content_type="text/plain; version=0.0.4; charset=utf-8")
        return Response(404, b"404 page not found\n", content_type="text/plain; charset=utf-8")

    listener = await network.listen(settings.address, settings.tls)
    await serve_http(listener, handle, task_status=task_status)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
