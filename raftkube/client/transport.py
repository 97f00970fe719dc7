"""What the REST client asks of one server. `raftkube.net.http_client.HttpClient` is the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from raftkube.net.http_client import ClientResponse

Headers = Iterable[tuple[str, str]]


class ReplyStream(Protocol):
    """An answer whose body is read as it comes. Iterating raises ResponseLost when it breaks off."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> dict[str, str]: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Transport(Protocol):
    """One server. Raises ConnectError (nothing was sent) or ResponseLost (it may have been carried out)."""

    async def request(
        self, method: str, target: str, *, headers: Headers = (), body: bytes = b""
    ) -> ClientResponse: ...

    def stream(
        self, method: str, target: str, *, headers: Headers = (), body: bytes = b""
    ) -> AbstractAsyncContextManager[ReplyStream]: ...
