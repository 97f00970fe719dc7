"""The connections between members: one that we dial to each other member, on which only we speak, and one
that each of them dials to us.

Identity comes before content: with TLS the certificate must carry the peers' organization and the name
that hello claims; then come frames of msgpack, never a pickle. A newer connection from a member ends the
older one, and what still arrives on the older is dropped. Nothing waits here: what a connection does not
take is buffered up to a bound, beyond which the connection is dropped.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import structlog
import trio

from raftkube.errors import ConfigError
from raftkube.limits import HANDSHAKE_TIMEOUT_S, PEER_FRAME_BYTES_MAX
from raftkube.net import Address, Connection, Listener, Network, TlsFiles
from raftkube.net.tcp import serve
from raftkube.rng import Rng
from raftkube.store.raft import messages as msg
from raftkube.store.raft.link import Link
from raftkube.store.raft.messages import Hello, Message
from raftkube.store.raft.settings import RaftSettings
from raftkube.types import member_name
from raftkube.wire.frames import FrameError, FrameReader, frame

log = structlog.get_logger(__name__)

PEER_ORGANIZATION: Final = "raftkube:store-peer"
_RECEIVE_BYTES: Final = 1024 * 1024
_HELLO_BYTES_MAX: Final = 4096
_ANSWERS_BYTES_MAX: Final = 65_536
_PONG: Final = frame([msg.PONG])
_PING: Final = frame([msg.PING])


class PeerEvents(Protocol):
    """What the connections tell the member."""

    def received(self, name: str, messages: list[Message]) -> None:
        """Messages from `name`, in the order sent, of its newest connection."""
        ...

    def peer_up(self, name: str) -> None:
        """`name` can be sent to."""
        ...

    def peer_down(self, name: str) -> None:
        """`name` cannot be sent to for now."""
        ...

    def peer_reset(self, name: str) -> None:
        """The connection from `name` broke and no newer one has replaced it."""
        ...

    def greeting(self) -> Hello:
        """What this member says of itself."""
        ...

    def admit(self, peer: Hello) -> str | None:
        """May the peer, of that data directory, be listened to? None, or the sentence why never again.
        Raises FrameError: it is not a member, as far as is known here, or its program is too old."""
        ...

    def refused(self, sentence: str) -> None:
        """A member says that this one must not take part again under its id."""
        ...


class Peers:
    """All connections of one member."""

    def __init__(
        self,
        network: Network,
        tls: TlsFiles | None,
        rng: Rng,
        settings: RaftSettings,
        events: PeerEvents,
        hints: Mapping[str, Address],
    ) -> None:
        """`hints`: where members of these names may be reached if not at the address that all know."""
        self._network, self._tls, self._rng, self._hints = network, tls, rng, hints
        self._settings, self._events = settings, events
        self._name = self.cluster_id = ""
        self._addresses: dict[str, Address] = {}
        self._dials: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._links: dict[str, Link] = {}
        self._incoming: dict[str, Connection] = {}
        self._last: tuple[Message, bytes] | None = None
        self._closed = False
        self.sent_bytes: Counter[str] = Counter()
        self.received_bytes: Counter[str] = Counter()
        self.send_failures: Counter[str] = Counter()

    def identify(self, name: str, cluster_id: str) -> None:
        """Whose connections these are; before `run`."""
        self._name, self.cluster_id = name, cluster_id

    def set_members(self, addresses: Mapping[str, Address]) -> None:
        """Dial these from now on, this member left out; connections of others end now."""
        before = self._addresses
        self._addresses = {id_: addresses[id_] for id_ in sorted(addresses) if id_ != self._name}
        for name in before:
            if name not in self._addresses:
                self._drop(name)
            elif before[name] != self._addresses[name] and name in self._links:
                self._links[name].connection.abort()  # it is dialled anew
        if self._nursery is not None:
            for name in self._addresses:
                if name not in before:
                    self._nursery.start_soon(self._dial, name)

    def _drop(self, name: str) -> None:
        scope, incoming = self._dials.pop(name, None), self._incoming.pop(name, None)
        if scope is not None:
            scope.cancel()
        if incoming is not None:
            incoming.abort()

    def send(self, name: str, message: Message) -> None:
        """Hand `message` to the connection to `name`; dropped if there is none. Never waits or raises.

        Answers to a peer whom we do not reach ourselves (we may not know yet that it is a member, or where)
        go back on the connection from it.
        """
        link = self._links.get(name)
        if link is None or self._closed:
            if self._closed or not self._send_back(name, message):
                self.send_failures[name] += 1
            return
        last = self._last
        if last is None or last[0] != message:  # an append often goes to several members
            last = self._last = (message, frame(message))
        link.send(last[1])
        self.sent_bytes[name] += len(last[1])

    def _send_back(self, name: str, message: Message) -> bool:
        connection = self._incoming.get(name)
        if connection is None or message[0] not in msg.ANSWERS:
            return False
        try:
            return connection.send_nowait(frame(message))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False

    def close(self) -> None:
        """Nothing more leaves: this member has failed."""
        self._closed = True
        for connection in (*self._incoming.values(), *(link.connection for link in self._links.values())):
            connection.abort()

    async def listen(self, address: Address) -> Listener:
        """Bind. Raises ConfigError: the address is taken or not ours, or the TLS files are bad."""
        return await self._network.listen(address, self._tls)

    async def run(
        self, listener: Listener, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept and dial until cancelled; `started` gives the bound address."""
        async with trio.open_nursery() as nursery:
            address = await nursery.start(serve, listener, self._accepted)
            self._nursery = nursery
            for name in self._addresses:
                nursery.start_soon(self._dial, name)
            task_status.started(address)

    # Outgoing.

    async def _dial(self, name: str) -> None:
        with trio.CancelScope() as scope:
            self._dials[name] = scope
            if name in self._addresses:
                await self._keep_dialling(name)

    def _places(self, name: str) -> Iterator[Address]:
        """Where to dial, in turn."""
        while True:
            yield self._addresses[name]
            hint = self._hints.get(member_name(name))
            if hint not in (None, self._addresses[name]):
                assert hint is not None
                yield hint

    async def _keep_dialling(self, name: str) -> None:
        settings, wait_s = self._settings, self._settings.reconnect_min_s
        for address in self._places(name):
            try:
                with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                    connection = await self._network.connect(address, self._client_tls(name))
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, ConfigError) as error:
                log.debug("peer_unreachable", peer=name, error=str(error))
            else:
                try:
                    if await self._speak(name, connection):
                        wait_s = settings.reconnect_min_s
                finally:
                    connection.abort()
            await trio.sleep(wait_s * (0.5 + self._rng.random()))
            wait_s = min(wait_s * 2, settings.reconnect_max_s)

    def _client_tls(self, name: str) -> TlsFiles | None:
        return None if self._tls is None else dataclasses.replace(self._tls, server_name=member_name(name))

    async def _speak(self, name: str, connection: Connection) -> bool:
        """Use the connection until it breaks; True if it ever worked."""
        try:
            self._check_identity(connection, name)
            await self._greet(name, connection)
        except (FrameError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            log.warning("peer_refused", peer=name, error=str(error) or type(error).__name__)
            return False
        try:
            async with trio.open_nursery() as nursery:
                link = Link(connection, self._settings.send_buffer_pause_bytes)
                link.on_pause = lambda: self._events.peer_down(name)
                link.on_resume = lambda: self._events.peer_up(name)
                self._links[name] = link
                self._events.peer_up(name)
                nursery.start_soon(link.run)
                await self._keep_alive(name, connection)
                nursery.cancel_scope.cancel()
        finally:
            del self._links[name]
            self._events.peer_down(name)
        return True

    async def _greet(self, name: str, connection: Connection) -> None:
        with trio.fail_after(HANDSHAKE_TIMEOUT_S):
            await connection.send_all(frame(self._hello(name)))
            answer = await _receive_hello(connection)
        if answer[0] == msg.REFUSED:
            self._events.refused(answer[1])
            raise FrameError(answer[1])
        peer = msg.check_hello(answer, cluster_id=self.cluster_id, receiver=self._name)
        if peer.sender != name:
            raise FrameError(f"that address belongs to {peer.sender!r}, not to {name!r}")
        refusal = self._events.admit(peer)
        if refusal is not None:
            raise FrameError(refusal)

    def _hello(self, name: str) -> Message:
        return msg.hello(self.cluster_id, name, self._events.greeting())

    async def _keep_alive(self, name: str, connection: Connection) -> None:
        """Read pongs and answers; return when the connection breaks or a ping is not answered in time."""
        pinged, reader = False, FrameReader(_ANSWERS_BYTES_MAX)
        try:
            while True:
                wait_s = self._settings.keepalive_timeout_s if pinged else self._settings.keepalive_s
                data = b""
                with trio.move_on_after(wait_s) as scope:
                    data = await connection.receive_some()
                if not scope.cancelled_caught:
                    if not data:
                        return
                    pinged = False
                    self._take_answers(name, [msg.decode(body) for body in reader.feed(data)])
                elif pinged:
                    return
                else:
                    pinged = True
                    connection.send_nowait(_PING)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        except FrameError as error:
            log.warning("peer_dropped", peer=name, error=str(error))

    def _take_answers(self, name: str, messages: list[Message]) -> None:
        answers = [message for message in messages if message[0] != msg.PONG]
        if any(message[0] not in msg.ANSWERS for message in answers):
            raise FrameError("more than an answer came on a connection that is ours to speak on")
        if answers and not self._closed:
            self._events.received(name, answers)

    # Incoming.

    async def _accepted(self, connection: Connection) -> None:
        try:
            self._check_identity(connection, None)
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                greeting = await _receive_hello(connection)
            peer = msg.check_hello(greeting, cluster_id=self.cluster_id, receiver=self._name)
            name = peer.sender
            self._check_identity(connection, name)
            refusal = self._events.admit(peer)
            if refusal is not None:
                await connection.send_all(frame([msg.REFUSED, refusal]))
                raise FrameError(refusal)
            await connection.send_all(frame(self._hello(name)))
        except FrameError as error:
            log.warning("peer_refused", error=str(error))
            return
        await self._listen_to(name, connection)

    async def _listen_to(self, name: str, connection: Connection) -> None:
        reader = FrameReader(PEER_FRAME_BYTES_MAX)
        older = self._incoming.get(name)
        self._incoming[name] = connection
        if older is not None:
            older.abort()
        try:
            while data := await connection.receive_some(_RECEIVE_BYTES):
                self.received_bytes[name] += len(data)
                messages = [msg.decode(body) for body in reader.feed(data)]
                if self._incoming.get(name) is not connection or self._closed:
                    return  # what an older connection still brings is dropped
                self._take(name, connection, messages)
        except FrameError as error:
            log.warning("peer_dropped", peer=name, error=str(error))
        finally:
            if self._incoming.get(name) is connection:
                del self._incoming[name]
                self._events.peer_reset(name)

    def _take(self, name: str, connection: Connection, messages: list[Message]) -> None:
        wanted = [message for message in messages if message[0] != msg.PING]
        if len(wanted) < len(messages):
            connection.send_nowait(_PONG)
        if any(message[0] in (msg.HELLO, msg.PONG, msg.REFUSED) for message in wanted):
            raise FrameError("a hello or a pong where none belongs")
        if wanted:
            self._events.received(name, wanted)

    def _check_identity(self, connection: Connection, name: str | None) -> None:
        """The certificate is a member's (and that of `name`). Raises FrameError."""
        if self._tls is None:
            return
        peer = connection.peer
        if peer is None or PEER_ORGANIZATION not in peer.organizations:
            raise FrameError(f"a peer's certificate must carry the organization {PEER_ORGANIZATION}")
        if name is not None and peer.common_name != member_name(name):
            raise FrameError(f"the certificate of {peer.common_name!r} does not stand for {name!r}")


async def _receive_hello(connection: Connection) -> Message:
    """The other end's first message, which is small and alone. Raises FrameError, BrokenResourceError."""
    reader = FrameReader(_HELLO_BYTES_MAX)
    while True:
        data = await connection.receive_some(_HELLO_BYTES_MAX)
        if not data:
            raise FrameError("the peer closed the connection before it said hello")
        messages = [msg.decode(body) for body in reader.feed(data)]
        if len(messages) > 1:
            raise FrameError("the peer did not wait for an answer to its hello")
        if messages:
            return messages[0]
