"""One connection to one member: requests in flight, watches, and the notice that it is gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Protocol

import outcome
import trio

from raftkube.errors import ConnectionLost, InvalidRequest, RaftkubeError, StoreError, Unreachable, from_wire
from raftkube.net import Address, Connection, Network, TlsFiles
from raftkube.net.outbox import Outbox
from raftkube.wire import rpc
from raftkube.wire.frames import FrameError, FrameReader, unpack
from raftkube.wire.store import Event, event_from_wire

_DIAL_S: Final = 3.0
_PING_S: Final = 1.0
# So many silent pings in a row, and the member counts as gone: it was stopped or cut off.
_PINGS_UNANSWERED_MAX: Final = 4


class NotSent(RaftkubeError):
    """The connection was gone before anything of the request was sent: try again elsewhere."""


class WatchSink(Protocol):
    """Where a connection delivers what belongs to one watch."""

    def on_batch(self, revision: int, events: tuple[Event, ...], size_bytes: int) -> None:
        """Everything up to `revision`."""
        ...

    def on_ended(self, error: StoreError) -> None:
        """The member ended the watch."""
        ...

    def on_lost(self) -> None:
        """The connection is gone."""
        ...


class MemberConnection:
    """Made by `open_connection`; its reader runs in the nursery given there."""

    def __init__(self, connection: Connection, address: Address) -> None:
        self.address = address
        self.name = ""
        self.cluster_id = ""
        self.closed = False
        self.leaving = False  # the member stops: it answers what it was sent, and takes nothing more
        self._connection = connection
        self._outbox = Outbox(connection)
        self._frames = FrameReader()
        self._bodies: list[bytes] = []
        self._pending: dict[int, trio.lowlevel.Task | None] = {}
        self._parts: dict[int, list[bytes]] = {}
        self._sinks: dict[int, Callable[[bytes], None]] = {}
        self._watches: dict[int, WatchSink] = {}
        self._fragments: dict[int, list[Event]] = {}
        self._last_id = 0
        self._last_watch_id = 0
        self._received = 0

    async def call(
        self,
        method: str,
        arguments: list[Any],
        deadline_ms: int = 0,
        sink: Callable[[bytes], None] | None = None,
    ) -> Any:
        """The answer to a request, as on the wire. `sink` gets the parts of a stream as they come; an
        OSError of its own ends the call.

        Raises NotSent (nothing happened), InvalidRequest (it does not fit the wire: a number beyond 64 bits),
        ConnectionLost (indefinite), or what the member answered.
        Cancelled: the request may still be carried out.
        """
        if self.closed or self.leaving:
            raise NotSent(f"the connection to {self.address} is closed")
        request_id = self._request(method, arguments, deadline_ms, trio.lowlevel.current_task())
        if sink is not None:
            self._sinks[request_id] = sink

        def forget(_: object) -> trio.lowlevel.Abort:
            del self._pending[request_id]
            self._parts.pop(request_id, None)
            self._sinks.pop(request_id, None)
            self._go_if_done()
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(forget)

    def tell(self, method: str, arguments: list[Any]) -> None:
        """A request whose answer nobody waits for."""
        if not (self.closed or self.leaving):
            self._request(method, arguments, 0, None)

    def add_watch(self, sink: WatchSink) -> int:
        """A watch id of this connection whose events go to `sink`."""
        self._last_watch_id += 1
        self._watches[self._last_watch_id] = sink
        return self._last_watch_id

    def remove_watch(self, watch_id: int) -> None:
        """Deliver nothing more for it, and tell the member."""
        if self._watches.pop(watch_id, None) is not None:
            self._fragments.pop(watch_id, None)
            self.tell(rpc.WATCH_CANCEL, [watch_id])

    def close(self) -> None:
        """Close now; what is in flight raises ConnectionLost."""
        self._connection.abort()
        self._lose("closed by the client")

    async def greet(self, client_name: str) -> None:
        """Exchange hellos. Raises Unreachable, or the member's refusal."""
        try:
            await self._connection.send_all(rpc.client_hello(client_name))
            while not self._bodies:
                data = await self._connection.receive_some()
                if not data:
                    raise Unreachable(f"{self.address} closed the connection before it answered")
                self._bodies.extend(self._frames.feed(data))
            message = unpack(self._bodies.pop(0))
            if isinstance(message, list) and message[:1] == [rpc.ERROR]:
                raise from_wire(message[2])
            self.name, self.cluster_id = rpc.parse_member_hello(message)
        except FrameError as error:
            raise Unreachable(f"{self.address}: {error}") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Unreachable(f"{self.address} closed the connection: {error}") from error

    async def run(self) -> None:
        """Read until the connection ends; it never raises but to be cancelled."""
        reason = "closed by the member"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._outbox.run)
                nursery.start_soon(self._watch_for_silence)
                try:
                    await self._read()
                except (trio.BrokenResourceError, trio.ClosedResourceError, FrameError) as error:
                    reason = str(error) or type(error).__name__
                nursery.cancel_scope.cancel()
        finally:
            self._connection.abort()
            self._lose(reason)

    def _request(
        self, method: str, arguments: list[Any], deadline_ms: int, task: trio.lowlevel.Task | None
    ) -> int:
        request_id = self._last_id + 1
        try:
            frame = rpc.request(request_id, method, arguments, deadline_ms)
        except (OverflowError, TypeError, ValueError) as error:  # before anything waits for its answer
            raise InvalidRequest(f"the request cannot be sent: {error}", field="op") from error
        self._last_id = request_id
        lone = not self._pending
        self._pending[request_id] = task
        if lone:
            self._outbox.send(frame)
        else:
            self._outbox.post(frame)
        return request_id

    async def _read(self) -> None:
        for body in self._bodies:  # that came with the hello
            self._dispatch(body)
        while data := await self._connection.receive_some():
            self._received += 1
            for body in self._frames.feed(data):
                self._dispatch(body)

    def _dispatch(self, body: bytes) -> None:
        message = unpack(body)
        kind = message[0]
        if kind == rpc.ANSWER:
            self._resolve(message[1], outcome.Value(message[2]))
        elif kind == rpc.EVENTS:
            self._deliver(message[1], message[2], message[3], len(body))
        elif kind == rpc.ERROR:
            self._resolve(message[1], outcome.Error(from_wire(message[2])))
        elif kind == rpc.PART:
            self._collect(message[1], message[2])
        elif kind == rpc.FRAGMENT:
            events = [event_from_wire(event) for event in message[3]]
            for watch_id in message[1]:
                self._fragments.setdefault(watch_id, []).extend(events)
        elif kind == rpc.ENDED:
            self._end(message[1], from_wire(message[2]))
        elif kind == rpc.GOODBYE:
            self._leave()
        else:
            raise FrameError(f"unknown frame kind {kind!r}")

    def _resolve(self, request_id: int, result: outcome.Value[Any] | outcome.Error) -> None:
        self._sinks.pop(request_id, None)
        task = self._pending.pop(request_id, None)
        if task is not None:
            trio.lowlevel.reschedule(task, result)
        self._go_if_done()

    def _leave(self) -> None:
        """Send nothing more; the connection ends with the last answer that is owed."""
        self.leaving = True
        self._lose_watches()
        self._go_if_done()

    def _go_if_done(self) -> None:
        if self.leaving and not self._pending:
            self._connection.abort()

    def _collect(self, request_id: int, part: bytes) -> None:
        if request_id not in self._pending:
            return
        sink = self._sinks.get(request_id)
        if sink is not None:
            try:
                sink(part)
            except OSError as error:
                self._resolve(request_id, outcome.Error(error))
        elif part:
            self._parts.setdefault(request_id, []).append(part)
        else:
            self._resolve(request_id, outcome.Value(unpack(b"".join(self._parts.pop(request_id)))))

    def _deliver(self, watch_ids: list[int], revision: int, wire: list[Any], size_bytes: int) -> None:
        events = tuple([event_from_wire(event) for event in wire])  # once, for all these watches
        for watch_id in watch_ids:
            sink = self._watches.get(watch_id)
            if sink is not None:
                before = self._fragments.pop(watch_id, None)
                sink.on_batch(revision, events if before is None else (*before, *events), size_bytes)

    def _end(self, watch_ids: list[int], error: StoreError) -> None:
        for watch_id in watch_ids:
            sink = self._watches.pop(watch_id, None)
            self._fragments.pop(watch_id, None)
            if sink is not None:
                sink.on_ended(error)

    def _lose(self, reason: str) -> None:
        self.closed = True
        pending, self._pending = self._pending, {}
        for task in pending.values():
            if task is not None:
                lost = ConnectionLost(f"the connection to {self.address} was lost: {reason}")
                trio.lowlevel.reschedule(task, outcome.Error(lost))
        self._lose_watches()

    def _lose_watches(self) -> None:
        watches, self._watches = self._watches, {}
        for sink in watches.values():
            sink.on_lost()

    async def _watch_for_silence(self) -> None:
        """Counts pings, not time: a client that was itself stopped blames nobody."""
        unanswered = 0
        seen = self._received
        while unanswered < _PINGS_UNANSWERED_MAX:
            await trio.sleep(_PING_S)
            if self._received != seen or not (self._pending or self._watches):
                unanswered = 0
            else:
                unanswered += 1
            seen = self._received
            if (self._pending or self._watches) and unanswered <= 1:
                self.tell(rpc.PING, [])
        self._connection.abort()


async def open_connection(
    network: Network, address: Address, tls: TlsFiles | None, *, client_name: str, nursery: trio.Nursery
) -> MemberConnection:
    """Dial a member and exchange hellos. Raises Unreachable, or PermissionDenied and its like."""
    with trio.move_on_after(_DIAL_S):
        try:
            raw = await network.connect(address, tls)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise Unreachable(f"{address} cannot be reached: {why}") from error
        connection = MemberConnection(raw, address)
        try:
            await connection.greet(client_name)
        except BaseException:
            raw.abort()
            raise
        nursery.start_soon(connection.run)
        return connection
    raise Unreachable(f"{address} did not answer within {_DIAL_S:g} s")
