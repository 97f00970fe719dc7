"""One client's connection: its hello, its requests in flight, its watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
import trio

from raftkube.errors import (
    Compacted,
    DeadlineExpired,
    Indefinite,
    InvalidRequest,
    PermissionDenied,
    Stopped,
    StoreError,
)
from raftkube.limits import FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT_S
from raftkube.net import Connection
from raftkube.net.outbox import Outbox
from raftkube.store.raft.membership import MemberChange
from raftkube.store.server.backup import send_backup
from raftkube.store.server.catch_up import catch_up, check_start
from raftkube.store.server.hub import Watcher
from raftkube.store.server.member_requests import MEMBER_METHODS, change_of
from raftkube.store.server.puts import PUT_BYTES_ALONE, Puts, is_put_request
from raftkube.store.server.service import Service
from raftkube.store.server.settings import ServerSettings
from raftkube.wire import rpc
from raftkube.wire.frames import FrameError, FrameReader, unpack
from raftkube.wire.store import Alarm, PutResult, Range, op_from_wire, result_to_wire

log = structlog.get_logger(__name__)

_WATCHES_MAX: Final = 65_536  # of one connection
_LINGER_S: Final = 1.0
_LINGER_READS_MAX: Final = 16
# Beyond it the connection is not read, and what is in flight already is answered later.
_UNREAD_ANSWERS_BYTES_MAX: Final = 16 * 1024 * 1024
# With TLS these methods are for operators and members, not for every client.
ADMIN_METHODS: Final = frozenset((rpc.MOVE_LEADER, rpc.SNAPSHOT, *MEMBER_METHODS))
_ADMIN_ROLES: Final = ("raftkube:store-admin", "raftkube:store-peer")


class Session:
    """Serves `connection` until its end; a bad frame ends it, and only it."""

    def __init__(
        self,
        connection: Connection,
        service: Service,
        settings: ServerSettings,
        roles: frozenset[str],
    ) -> None:
        self._connection = connection
        self._service = service
        self._settings = settings
        self._roles = roles
        self._outbox = Outbox(connection)
        self._outbox.on_room(self._has_room)
        self._activity = service.machine.activity
        self._watchers: dict[int, Watcher] = {}
        self._catch_ups: dict[int, trio.CancelScope] = {}
        self._greeted = self._leaving = False
        self._in_flight = 0
        self._owed: deque[Callable[[], None]] = deque()  # answers to be made once there is room
        self._room = trio.Event()
        self._nursery: trio.Nursery
        self._methods: dict[str, Callable[[rpc.Request], None]] = {
            rpc.OP: self._op,
            rpc.RANGE_SERIALIZABLE: self._range_serializable,
            rpc.WATCH_CREATE: self._watch_create,
            rpc.WATCH_CANCEL: self._watch_cancel,
            rpc.WATCH_PROGRESS: self._watch_progress,
            rpc.STATUS: lambda request: self._answer(request.id, self._service.status()),
            rpc.HASH: lambda request: self._nursery.start_soon(self._hash, request),
            rpc.MEMBER_LIST: lambda request: self._nursery.start_soon(self._member_list, request),
            **dict.fromkeys(MEMBER_METHODS, self._change_members),
            rpc.SNAPSHOT: lambda request: self._nursery.start_soon(self._send_snapshot, request),
            rpc.MOVE_LEADER: lambda request: self._nursery.start_soon(self._move_leader, request),
            rpc.PING: lambda request: self._answer(request.id, []),
        }

    async def run(self) -> None:
        """Cancelled: watches end with a last word where the socket takes it at once."""
        self._activity.opened(self._outbox)
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._outbox.run)
                await self._read_until_broken()
                self._nursery.cancel_scope.cancel()
        finally:
            self.end_watches()
            self._activity.closed(self._outbox)

    def leave(self) -> None:
        """The member stops: watches end, what is in flight is answered, everything else is refused, and the
        client is told to go once it has its answers; `run` ends when it has gone."""
        self._leaving = True
        self.end_watches()
        if self._greeted:
            self._outbox.send(rpc.goodbye())
        else:
            self._connection.abort()  # nothing was asked of it

    async def _read_until_broken(self) -> None:
        try:
            if self._admitted():
                await self._read(FrameReader(FRAME_BYTES_MAX))
            else:
                await self._discard()
        except FrameError as error:
            log.info("client_frame_refused", error=str(error))
            if not self._greeted:
                self._outbox.send(rpc.error(0, InvalidRequest(str(error), field="hello").to_wire()))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            log.debug("client_gone", error=str(error) or type(error).__name__)

    def _admitted(self) -> bool:
        """Whether the certificate's role may speak here, decided before a byte that it sends is looked at."""
        peer = self._connection.peer
        if not self._roles or (peer is not None and self._roles.intersection(peer.organizations)):
            return True
        shown = ", ".join(peer.organizations) if peer else "no certificate"
        refusal = PermissionDenied(
            f"the client port takes certificates with O={' or '.join(sorted(self._roles))}, not {shown}"
        )
        self._activity.refused_connections += 1
        log.info("client_refused", name=peer.common_name if peer else "", error=refusal.message)
        self._outbox.send(rpc.error(0, refusal.to_wire()))
        return False

    async def _discard(self) -> None:
        """Read on a little, unseen: closing on unread bytes would reset the connection, the refusal lost."""
        with trio.move_on_after(_LINGER_S):
            for _ in range(_LINGER_READS_MAX):
                if not await self._connection.receive_some():
                    return

    async def _read(self, reader: FrameReader) -> None:
        with trio.fail_after(HANDSHAKE_TIMEOUT_S):
            while not self._greeted:
                data = await self._connection.receive_some()
                if not data:
                    return
                self._activity.received_bytes += len(data)
                self._take(reader.feed(data))
        while data := await self._connection.receive_some():
            self._activity.received_bytes += len(data)
            self._take(reader.feed(data))
            while self._in_flight >= self._settings.requests_in_flight_max:
                self._room = trio.Event()
                await self._room.wait()
            await self._outbox.wait_room(_UNREAD_ANSWERS_BYTES_MAX)

    def _greet(self, hello: rpc.ClientHello) -> None:
        identity = self._service.identity
        self._greeted = True
        self._outbox.send(rpc.member_hello(identity.name, identity.cluster_id))
        if self._leaving:
            self._outbox.send(rpc.goodbye())

    def _take(self, bodies: Iterable[bytes]) -> None:
        """Carry out requests that arrived together; puts that follow each other are proposed together."""
        received, puts = self._service.clock.monotonic(), Puts()
        try:
            for body in bodies:
                message = unpack(body)
                if self._greeted and is_put_request(message):
                    if puts.full or len(body) > PUT_BYTES_ALONE:
                        self._propose(puts, received)
                        puts = Puts()
                    puts.add(*message)
                    continue
                if puts.ids:
                    self._propose(puts, received)
                    puts = Puts()
                if self._greeted:
                    self._dispatch(rpc.parse_request(message))
                else:
                    self._greet(rpc.parse_client_hello(message))
        finally:
            self._propose(puts, received)  # a bad frame ends the connection, not what came before it

    def _propose(self, puts: Puts, received: float) -> None:
        if not puts.ids:
            return
        waited_ms = (self._service.clock.monotonic() - received) * 1000
        self._in_flight += len(puts.ids)
        self._activity.requests[rpc.OP] += len(puts.ids)
        if min(puts.deadlines_ms) <= waited_ms:  # the member was stopped meanwhile
            puts, expired = puts.split(waited_ms)
            error = DeadlineExpired("the deadline passed before the operation was proposed")
            self._finish_puts(expired, error)
            if not puts.ids:
                return
        try:
            if self._leaving:
                raise Stopped("this member is stopping; nothing was done")
            last = received + max(puts.deadlines_ms) / 1000  # while one is wanted all are proposed
            self._service.submit_puts(puts.wires, last, lambda outcome: self._finish_puts(puts.ids, outcome))
        except StoreError as error:
            self._finish_puts(puts.ids, error)

    def _finish_puts(self, ids: list[int], outcome: Any) -> None:
        """`outcome` is the list of results, or the one StoreError of all."""
        results = [outcome] * len(ids) if isinstance(outcome, StoreError) else outcome
        answers = [self._encode(*answered) for answered in zip(ids, results, strict=True)]
        self._in_flight -= len(ids)
        self._room.set()
        self._outbox.send(b"".join(answers))

    def _dispatch(self, request: rpc.Request) -> None:
        self._in_flight += 1
        method = self._methods.get(request.method)
        try:
            if method is None:
                raise InvalidRequest(f"there is no method {request.method!r}", field="method")
            if self._leaving:
                raise Stopped("this member is stopping; nothing was done")
            if request.method in ADMIN_METHODS:
                self._check_admin(request.method)
            self._activity.requests[request.method] += 1
            method(request)
        except StoreError as error:
            self._fail(request.id, error)

    def _check_admin(self, method: str) -> None:
        peer = self._connection.peer
        if self._roles and (peer is None or not set(peer.organizations).intersection(_ADMIN_ROLES)):
            raise PermissionDenied(f"{method} takes a certificate with O={' or '.join(_ADMIN_ROLES)}")

    def _op(self, request: rpc.Request) -> None:
        op = op_from_wire(_only_argument(request))
        request_id = request.id
        if isinstance(op, Alarm):
            self._check_admin("to disarm an alarm")

        def done(outcome: Any) -> None:
            self._when_room(lambda: self._finish(request_id, outcome() if callable(outcome) else outcome))

        self._service.submit(op, self._deadline(request), done)

    def _when_room(self, answer: Callable[[], None]) -> None:
        """Make an answer only while the client reads: a result that waits is shared with the state, or not
        even read yet, but its frames would be memory of this connection alone."""
        if self._owed or self._outbox.posted_bytes > _UNREAD_ANSWERS_BYTES_MAX:
            self._owed.append(answer)
        else:
            answer()

    def _has_room(self) -> None:
        self._service.hub.resume(self._outbox)
        while self._owed and self._outbox.posted_bytes <= _UNREAD_ANSWERS_BYTES_MAX:
            self._owed.popleft()()

    def _range_serializable(self, request: rpc.Request) -> None:
        op = op_from_wire(_only_argument(request))
        if not isinstance(op, Range):
            raise InvalidRequest("only a Range can be read without linearizability", field="op")
        self._service.suspension.check_reads()
        self._when_room(lambda: self._finish(request.id, self._service.read(op)))

    def _change_members(self, request: rpc.Request) -> None:
        self._nursery.start_soon(self._run_change, request, change_of(request, self._service))

    async def _run_change(self, request: rpc.Request, change: MemberChange) -> None:
        try:
            await self._service.change_members(change)
            self._answer(request.id, [change.id])
        except StoreError as error:
            self._fail(request.id, error)

    async def _hash(self, request: rpc.Request) -> None:
        try:
            self._answer(request.id, await self._service.state_hash())
        except StoreError as error:
            self._fail(request.id, error)

    async def _member_list(self, request: rpc.Request) -> None:
        """[true]: linearizable; nothing: as this member knows them, as those ask that look for a place."""
        try:
            if request.arguments not in ([], [True]):
                raise InvalidRequest("member_list takes true or nothing", field="linearizable")
            if request.arguments:
                await self._service.consensus.read_index()
            self._answer(request.id, self._service.member_list())
        except StoreError as error:
            self._fail(request.id, error)

    async def _send_snapshot(self, request: rpc.Request) -> None:
        try:
            linearizable = _only_argument(request)
            if type(linearizable) is not bool:
                raise InvalidRequest("snapshot takes true or false", field="linearizable")
            sent = await send_backup(
                self._service, self._outbox, request.id,
                linearizable=linearizable, deadline=self._deadline(request),
            )  # fmt: skip
            self._answer(request.id, [sent])
        except StoreError as error:
            self._fail(request.id, error)

    async def _move_leader(self, request: rpc.Request) -> None:
        try:
            to = _only_argument(request)
            if to is not None and type(to) is not str:
                raise InvalidRequest("move_leader takes a member's name, or nothing", field="to")
            self._answer(request.id, [await self._service.move_leader(to)])
        except StoreError as error:
            self._fail(request.id, error)

    def _deadline(self, request: rpc.Request) -> float:
        if not request.deadline_ms:
            return float("inf")
        return self._service.clock.monotonic() + request.deadline_ms / 1000

    def _finish(self, request_id: int, outcome: Any) -> None:
        """`outcome` is a result or a StoreError. Never raises: others' steps end here."""
        self._reply(self._encode(request_id, outcome))

    def _encode(self, request_id: int, outcome: Any) -> bytes:
        if isinstance(outcome, StoreError):
            return rpc.error(request_id, outcome.to_wire())
        try:
            if type(outcome) is PutResult and outcome.prev_kv is None:
                return rpc.put_answer(request_id, outcome.revision)
            return rpc.answer(request_id, result_to_wire(outcome))
        except Exception:  # the boundary: an answer that cannot be made (memory) never stops a member
            log.exception("answer_failed")
            lost = Indefinite("it was carried out, but the answer could not be made")
            return rpc.error(request_id, lost.to_wire())

    def _answer(self, request_id: int, result: Any) -> None:
        self._reply(rpc.answer(request_id, result))

    def _fail(self, request_id: int, error: StoreError) -> None:
        self._reply(rpc.error(request_id, error.to_wire()))

    def _reply(self, frames: bytes) -> None:
        """At once for a lone request; answers of many leave together."""
        if self._in_flight == 1:
            self._outbox.send(frames)
        else:
            self._outbox.post(frames)
        self._in_flight -= 1
        self._room.set()

    # Watches.

    def _watch_create(self, request: rpc.Request) -> None:
        self._service.suspension.check_watches()
        asked = rpc.parse_watch_request(request.arguments)
        if asked.watch_id in self._watchers:
            raise InvalidRequest(f"watch_id {asked.watch_id} is in use on this connection", field="watch_id")
        if len(self._watchers) >= _WATCHES_MAX:
            raise InvalidRequest(f"a connection carries at most {_WATCHES_MAX} watches", field="watch_id")
        hub = self._service.hub
        if 0 < asked.start_revision <= hub.revision:
            check_start(self._service.machine, asked.start_revision)
        watcher = Watcher(
            asked,
            self._outbox,
            restart=self._catch_up,
            ended=lambda: self._forget(asked.watch_id),
        )
        self._watchers[asked.watch_id] = watcher
        self._activity.watchers += 1
        self._answer(request.id, [hub.revision])
        if asked.start_revision in (0, hub.revision + 1):
            hub.join(watcher)
        elif asked.start_revision > hub.revision:
            hub.join_at(watcher, asked.start_revision)
        else:
            self._catch_up(watcher, asked.start_revision - 1)

    def _watch_cancel(self, request: rpc.Request) -> None:
        watcher = self._watcher(request)
        if watcher is not None:
            self._forget(watcher.request.watch_id)
        self._answer(request.id, [watcher is not None])

    def _watch_progress(self, request: rpc.Request) -> None:
        watcher = self._watcher(request)
        if watcher is None:
            raise InvalidRequest("there is no such watch on this connection", field="watch_id")

        def marked(error: StoreError | None) -> None:
            if error is not None:
                self._fail(request.id, error)
                return
            self._answer(request.id, [self._service.hub.revision])
            if watcher.request.watch_id in self._watchers:
                self._service.hub.mark(watcher)

        self._service.reads.submit(marked)

    def _watcher(self, request: rpc.Request) -> Watcher | None:
        watch_id = _only_argument(request)
        return self._watchers.get(watch_id) if isinstance(watch_id, int) else None

    def _catch_up(self, watcher: Watcher, after: int) -> None:
        self._nursery.start_soon(self._run_catch_up, watcher, after)

    async def _run_catch_up(self, watcher: Watcher, after: int) -> None:
        watch_id = watcher.request.watch_id
        if self._watchers.get(watch_id) is not watcher:
            return
        service = self._service
        with trio.CancelScope() as scope:
            self._catch_ups[watch_id] = scope
            self._activity.catching_up += 1
            try:
                await catch_up(service.machine, service.hub, watcher, self._outbox, after)
            except Compacted as error:
                self._outbox.send(rpc.ended([watch_id], error.to_wire()))
                self._forget(watch_id)
            finally:
                self._activity.catching_up -= 1
                if self._catch_ups.get(watch_id) is scope:
                    del self._catch_ups[watch_id]

    def _forget(self, watch_id: int) -> None:
        watcher = self._watchers.pop(watch_id, None)
        if watcher is not None:
            self._activity.watchers -= 1
            self._service.hub.leave(watcher)
        scope = self._catch_ups.pop(watch_id, None)
        if scope is not None:
            scope.cancel()

    def end_watches(self) -> None:
        """End all its watches, each with a last word on where to resume if the socket takes it."""
        if not self._outbox.broken:
            self._service.hub.end_all(self._outbox, reason="stopping")
        for watch_id in list(self._watchers):
            self._forget(watch_id)


def _only_argument(request: rpc.Request) -> Any:
    if len(request.arguments) != 1:
        raise InvalidRequest(f"{request.method} takes one argument", field="arguments")
    return request.arguments[0]
