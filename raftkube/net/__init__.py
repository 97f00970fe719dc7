"""The door to the network: addresses, connections with a verified peer, listeners.

No protocol lives here but TLS; frames are in `raftkube.wire`, HTTP in `raftkube.net.http_*`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from raftkube.errors import ConfigError

_PORT: Final = re.compile(r"[0-9]{1,5}")
_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(\.{_LABEL})*\.?")


class Address(NamedTuple):
    """A host (name or literal) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host:port`, `[v6]:port`, or a URL of them (http, https). Raises ConfigError naming the text.

    A host that no resolver would take is refused: some addresses stand in the configuration of a store for
    good, and whoever dials them must not choke on one.
    """
    rest = text.split("://", 1)[-1].rstrip("/")
    host, colon, port = rest.rpartition(":")
    host = host.strip("[]")
    if not (colon and _PORT.fullmatch(port) and int(port) <= 65535 and _is_host(host)):
        raise ConfigError(f"{text[:300]!r} is not an address; write host:port, for example 127.0.0.1:2379")
    return Address(host, int(port))


def _is_host(host: str) -> bool:
    if _NAME.fullmatch(host):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who stands at the other end, from a certificate that a trusted CA signed.

    `common_name` and `organizations` are the subject's CN and O (user and groups in Kubernetes),
    `names` the DNS names and URIs of its SAN.
    """

    common_name: str
    organizations: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one end. A server with `ca_file` asks clients for certificates; a client without
    `cert_file` is anonymous. `server_name` is what a client expects in the server's SAN
    (default: the host it dials). `require_peer`: a server refuses clients without a certificate.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    require_peer: bool = True


class Connection(Protocol):
    """An ordered byte stream. One task reads; any task may send.

    All methods raise `trio.BrokenResourceError` when the connection is broken and
    `trio.ClosedResourceError` when this end has closed it.
    """

    @property
    def peer(self) -> PeerIdentity | None:
        """The verified identity of the other end; None if it showed no certificate or TLS is off."""
        ...

    async def handshake(self) -> None:
        """Finish the TLS handshake (at once without TLS). Called once, by whoever accepted. Raises
        trio.TooSlowError: the other end took more than HANDSHAKE_TIMEOUT_S, what this end took apart."""
        ...

    def send_nowait(self, data: bytes) -> bool:
        """Take all of `data` or none: False means that earlier bytes still wait for the socket.

        True may leave a part of `data` inside; `drain` moves it on, and so does the next send.
        """
        ...

    @property
    def unsent(self) -> bool:
        """True while bytes taken by `send_nowait` still wait inside for the socket."""
        ...

    async def drain(self) -> None:
        """Wait until everything taken by `send_nowait` has been handed to the network."""
        ...

    async def send_all(self, data: bytes) -> None:
        """Send `data` behind all that was taken before. Cancelled: a part may have been sent, and the
        connection must be closed."""
        ...

    async def receive_some(self, max_bytes: int = 262_144) -> bytes:
        """At least one byte, at most `max_bytes`; b"" at the end of the stream."""
        ...

    @property
    def peer_closed(self) -> bool:
        """Whether the other end is known to send nothing more, whatever still waits to be read. Never
        waits and never raises."""
        ...

    def abort(self) -> None:
        """Close now, without ceremony and without waiting. Idempotent."""
        ...

    async def aclose(self) -> None:
        """Close, telling the other end where that can be done without waiting. Idempotent."""
        ...


ConnectionHandler = Callable[[Connection], Awaitable[None]]


class Listener(Protocol):
    """A bound port that accepts."""

    @property
    def address(self) -> Address:
        """Where it listens (the real port where 0 was asked)."""
        ...

    async def accept(self) -> Connection:
        """The next connection; the caller runs its `handshake` in a task of its own."""
        ...

    async def aclose(self) -> None:
        """Stop listening; accepted connections go on."""
        ...


class Network(Protocol):
    """How a component reaches others: the real one is `raftkube.net.tcp.TcpNetwork`."""

    async def connect(self, address: Address, tls: TlsFiles | None) -> Connection:
        """Dial, with the TLS handshake done. Raises OSError (ssl.SSLError included): not reached."""
        ...

    async def listen(self, address: Address, tls: TlsFiles | None) -> Listener:
        """Bind; port 0 asks for a free one. Raises ConfigError: address taken or not ours, bad TLS files."""
        ...
