"""How stock members talk: pickles in zlib in frames, on one connection for each pair, as its TCPTransport.

The higher name dials. A newer connection takes the older one's place, and what the older one still brings
is heard all the same. Identity is whatever the first message says.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import trio
from pysyncobj.transport import Transport

from chaos.sim.network import SimConnection, SimNetwork
from chaos.sim.stock_private import StockWorld
from raftkube.net import Address
from raftkube.store.raft.private import Member

PEER_PORT: Final = 2380
RETRY_S: Final = 0.2  # stock's connectionRetryTime is 5 s; the group would only sleep longer
SILENCE_S: Final = 3.5  # stock's connectionTimeout
_UNSENT_BYTES: Final = 1 << 26  # stock's write buffer has no bound; the simulation's memory has


class Process(Protocol):
    """The member around its transport."""

    name: str
    wake: trio.Event

    def now_world(self) -> StockWorld:
        """Its world, at the present time."""
        ...

    def received(self, name: str, message: Any) -> None:
        """A message of the member `name`."""
        ...

    async def wait_running(self) -> None:
        """While it is paused."""
        ...


class _Link:
    """One connection as a stock member holds it."""

    def __init__(self, connection: SimConnection, now: float) -> None:
        self.connection, self.heard_at = connection, now
        self._unsent = b""

    def send(self, message: Any) -> None:
        data = zlib.compress(pickle.dumps(message, 2), 3)
        self._unsent += struct.pack("i", len(data)) + data
        self.flush()
        if len(self._unsent) > _UNSENT_BYTES:
            self.connection.abort()

    def flush(self) -> None:
        try:
            if self._unsent and self.connection.send_nowait(self._unsent):
                self._unsent = b""
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._unsent = b""


class StockTransport(Transport):  # type: ignore[misc]
    """One member's connections."""

    def __init__(self, host: Process, others: list[str], network: SimNetwork) -> None:
        super().__init__(None, None, [])
        self._host, self._others, self._network = host, others, network
        self._links: dict[str, _Link] = {}

    def send(self, node: Member, message: Any) -> bool:
        link = self._links.get(node.id)
        if link is None:
            return False
        if trio.current_time() - link.heard_at > SILENCE_S:
            link.connection.abort()
            self._lost(node.id, link)
            return False
        link.send(message)
        return True

    async def run(self, nursery: trio.Nursery) -> None:
        """Listen, accept and dial until cancelled."""
        listener = await self._network.host(self._host.name).listen(Address(self._host.name, PEER_PORT), None)
        for name in self._others:
            if self._host.name > name:
                nursery.start_soon(self._dial, name)
        try:
            while True:
                connection = await listener.accept()
                nursery.start_soon(self._accepted, connection)
        finally:
            with trio.CancelScope(shield=True):
                await listener.aclose()

    async def _dial(self, name: str) -> None:
        while True:
            try:
                connection = await self._network.host(self._host.name).connect(Address(name, PEER_PORT), None)
            except OSError:
                await trio.sleep(RETRY_S)
                continue
            link = _Link(connection, trio.current_time())
            link.send(self._host.name)
            self._joined(name, link)
            await self._read(link, lambda message: self._host.received(name, message))
            self._lost(name, link)
            await trio.sleep(RETRY_S)

    async def _accepted(self, connection: SimConnection) -> None:
        link, sender = _Link(connection, trio.current_time()), ""

        def take(message: Any) -> None:
            nonlocal sender
            if sender:
                self._host.received(sender, message)
            elif message in self._others:
                sender = message
                self._joined(sender, link)
            else:
                connection.abort()

        await self._read(link, take)
        self._lost(sender, link)

    async def _read(self, link: _Link, take: Callable[[Any], None]) -> None:
        buffer = b""
        try:
            while data := await link.connection.receive_some():
                await self._host.wait_running()
                link.heard_at = trio.current_time()
                link.flush()
                buffer += data
                while len(buffer) >= 4:
                    (size,) = struct.unpack("i", buffer[:4])
                    if len(buffer) - 4 < size:
                        break
                    body, buffer = buffer[4 : 4 + size], buffer[4 + size :]
                    take(pickle.loads(zlib.decompress(body)))  # noqa: S301 what stock does
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        link.connection.abort()

    def _joined(self, name: str, link: _Link) -> None:
        self._links[name] = link
        with self._host.now_world():
            self._onNodeConnected(Member(name))
        self._host.wake.set()

    def _lost(self, name: str, link: _Link) -> None:
        if self._links.get(name) is link:
            del self._links[name]
            with self._host.now_world():
                self._onNodeDisconnected(Member(name))
