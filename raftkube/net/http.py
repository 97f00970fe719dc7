"""HTTP/1.1 as values: what a handler gets and gives. `http_server` and `http_client` move them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from raftkube.net import Connection, PeerIdentity


def _never() -> bool:
    return False


@dataclass(slots=True)
class Request:
    """One request. `path` is percent-decoded and without the query; `raw_path` as it came; header names
    are lower-case, repeated ones joined by ", ". client_gone: whether nobody waits for
    the answer any more."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    peer: PeerIdentity | None = None
    raw_path: str = ""
    remote: str = ""
    client_gone: Callable[[], bool] = _never


@dataclass(slots=True)
class Response:
    """A whole answer. Content-Length, Date and Connection are added by the server.

    pieces: what follows `body`. A large answer made of many parts is never joined: it is sent as it is
    encrypted, some pieces at a time, so that it costs little memory and holds nobody else up.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: Sequence[bytes] = ()

    @property
    def size_bytes(self) -> int:
        """Of body and pieces together."""
        return len(self.body) + sum(map(len, self.pieces))


class BodySender(Protocol):
    """The sending half of a streamed answer (chunked)."""

    async def send(self, data: bytes) -> None:
        """Send one chunk at once. Raises trio.BrokenResourceError when the client has gone."""
        ...

    def send_nowait(self, data: bytes) -> bool:
        """Take the chunk, or say False when earlier ones still wait for the socket."""
        ...

    @property
    def unsent(self) -> bool:
        """True while a part of what was taken still waits for the socket: `drain`, or send more."""
        ...

    async def drain(self) -> None:
        """Wait until all that was taken is on its way."""
        ...


@dataclass(slots=True)
class StreamResponse:
    """An answer that goes on. The head is sent and flushed first, then `run(sender)`; when it returns,
    the last chunk is sent; when the client goes, `run` is cancelled."""

    status: int
    run: Callable[[BodySender], Awaitable[None]]
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class UpgradeResponse:
    """101 Switching Protocols: after the head, `run(connection, early_bytes)` owns the connection."""

    run: Callable[[Connection, bytes], Awaitable[None]]
    headers: list[tuple[str, str]] = field(default_factory=list)


AnyResponse = Response | StreamResponse | UpgradeResponse
Handler = Callable[[Request], Awaitable[AnyResponse]]
