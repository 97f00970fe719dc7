"""The client of a store cluster: one pipelined connection per member, failover, definite retries only.

A write is sent again only when the error says that it did not happen (another member leads, none does,
it could not be sent); everything else is raised, for it may have happened. Reads are always sent again.
Retries go on until the caller's deadline: `with trio.fail_after(...)`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, cast

import trio

from raftkube.clock import Clock, SystemClock
from raftkube.errors import (
    ConfigError,
    ConnectionLost,
    Indefinite,
    NoLeader,
    NotLeader,
    Overloaded,
    SessionUnknown,
    Stopped,
    StoreError,
    Unreachable,
    Unsupported,
)
from raftkube.net import Address, Network, TlsFiles, parse_address
from raftkube.rng import Rng, system_rng
from raftkube.store.client.connection import MemberConnection, NotSent, open_connection
from raftkube.store.client.numbered_writes import NumberedWrites
from raftkube.store.client.operations import NUMBERED, READS, Operations
from raftkube.store.client.watch import Watch, WatchOptions
from raftkube.wire import rpc
from raftkube.wire.store import Op, Range, RangeResult, op_to_wire, result_from_wire

_BACKOFF_MIN_S: Final = 0.01
_BACKOFF_MAX_S: Final = 0.2
_FOLLOW_S: Final = 10.0
_Result = TypeVar("_Result")


class _Member:
    """A member by its address; its name is known once it was connected to."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.name = ""
        self.connection: MemberConnection | None = None
        self.dialing = trio.Lock()


class StoreClient(Operations):
    """Use `async with StoreClient.open(...) as client`. Any number of tasks may call it."""

    def __init__(
        self,
        network: Network,
        addresses: Sequence[Address],
        tls: TlsFiles | None,
        *,
        name: str,
        clock: Clock,
        rng: Rng,
        pinned: bool,
        exactly_once: bool,
        on_retry: Callable[[str], None] | None,
        nursery: trio.Nursery,
    ) -> None:
        if not addresses:
            raise ConfigError("a store client needs the address of at least one member")
        self._network = network
        self._tls = tls
        self._name = name
        self._clock = clock
        self._rng = rng
        self._pinned = pinned
        self._numbered = NumberedWrites(self._send) if exactly_once and not pinned else None
        self._on_retry = on_retry
        self._nursery = nursery
        self._members = [_Member(address) for address in addresses]
        self._given = tuple(self._members)
        self._preferred = self._members[0]

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        network: Network,
        addresses: Sequence[Address],
        tls: TlsFiles | None = None,
        *,
        name: str = "client",
        clock: Clock | None = None,
        rng: Rng | None = None,
        pinned: bool = False,
        exactly_once: bool = False,
        on_retry: Callable[[str], None] | None = None,
    ) -> AsyncIterator[StoreClient]:
        """A client of the members at `addresses`; members are dialled when first needed.

        `pinned`: speak to the first address only and retry nothing: every error is raised as it is.
        `exactly_once`: number the writes in a session of the store, so that they are sent again after an
        indefinite error, too, until the caller's deadline, and take effect once. It costs a write to open
        the session and one to close it, and a few bytes with each write.
        `on_retry` is told why something has to be tried again.
        """
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            client = cls(
                network, addresses, tls, name=name, clock=clock or SystemClock(), rng=rng or system_rng(),
                pinned=pinned, exactly_once=exactly_once, on_retry=on_retry, nursery=nursery,
            )  # fmt: skip
            try:
                nursery.start_soon(client._follow_members)
                yield client
                if client._numbered is not None:
                    await client._numbered.close()
            except Exception as error:  # noqa: BLE001  # raised below, outside the nursery's groups
                failure = error
            finally:
                client._close()
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def range(
        self, op: Range, *, serializable: bool = False, member: Address | str | None = None
    ) -> RangeResult:
        """Read. `serializable`: from one member's own state, which may lag. `member` (its address or name)
        picks who answers. Raises Compacted, FutureRevision."""
        method = rpc.RANGE_SERIALIZABLE if serializable else rpc.OP
        wire = await self._call(method, [op_to_wire(op)], write=False, member=member)
        return cast(RangeResult, result_from_wire(wire))

    # The cluster.

    async def status(self, member: Address | str | None = None) -> dict[str, Any]:
        """What one member says of itself (the one last used, unless named)."""
        return dict(await self._call(rpc.STATUS, [], write=False, member=member))

    async def hash(self, member: Address | str | None = None) -> dict[str, Any]:
        """The hash of a member's state, and the revision that it was taken at."""
        return dict(await self._call(rpc.HASH, [], write=False, member=member))

    async def member_list(
        self, member: Address | str | None = None, *, serializable: bool = False
    ) -> list[dict[str, Any]]:
        """The members. `serializable`: as one of them knows them, which needs no leader and may be old."""
        arguments = [] if serializable else [True]
        return list(await self._call(rpc.MEMBER_LIST, arguments, write=False, member=member))

    async def member_add(
        self, name: str, peer_address: str, client_address: str = "", *, learner: bool = False
    ) -> str:
        """Add a member that learns the log, and votes once it has caught up unless it stays a `learner`;
        its id. Raises MembershipRefused (why), PermissionDenied; indefinite: it may be added yet."""
        return await self._change_member(rpc.MEMBER_ADD, [name, peer_address, client_address, learner])

    async def member_remove(self, member: str) -> str:
        """Remove a member, by id or name; its id. Raises as `member_add`."""
        return await self._change_member(rpc.MEMBER_REMOVE, [member])

    async def member_promote(self, member: str) -> str:
        """Let a learner vote; its id. Raises as `member_add`."""
        return await self._change_member(rpc.MEMBER_PROMOTE, [member])

    async def member_update(
        self, member: str, peer_address: str | None = None, client_address: str | None = None
    ) -> str:
        """A member is reached elsewhere; None keeps an address. Its id. Raises as `member_add`."""
        return await self._change_member(rpc.MEMBER_UPDATE, [member, peer_address, client_address])

    async def _change_member(self, method: str, arguments: list[Any]) -> str:
        (member_id,) = await self._call(method, arguments, write=True)
        return str(member_id)

    async def move_leader(self, to: str | None = None) -> str:
        """Make the member `to` (None: the most up-to-date one beside the leader) lead; who leads then.

        Raises InvalidRequest, Unreachable, DeadlineExpired, PermissionDenied; indefinite: it was asked.
        """
        (leader,) = await self._call(rpc.MOVE_LEADER, [to], write=True)
        return str(leader)

    @asynccontextmanager
    async def watch(
        self,
        key: bytes,
        range_end: bytes = b"",
        start_revision: int = 0,
        prev_kv: bool = False,
        progress_notify: bool = False,
        *,
        no_put: bool = False,
        no_delete: bool = False,
        resume: bool = True,
    ) -> AsyncIterator[Watch]:
        """Watch a key or range from `start_revision` on (0: what happens after entering).

        On entering, a member has accepted the watch. Raises Compacted: that revision is gone.
        """
        options = WatchOptions(
            key, range_end, start_revision, prev_kv, progress_notify, no_put, no_delete, resume
        )
        watch = Watch(self, options)
        await watch.attach()
        try:
            yield watch
        finally:
            watch.detach()

    async def snapshot(self, sink: Callable[[bytes], None], *, linearizable: bool = True) -> int:
        """Hand a backup of the store to `sink`, piece by piece; its size in bytes.

        `linearizable`: every write acknowledged before is in it. Another member is asked only while nothing
        has come: then errors are raised, and what came is to be thrown away. Raises Unreachable, NoLeader,
        PermissionDenied, DeadlineExpired; indefinite: ConnectionLost; OSError of the sink's own.
        """
        begun, last = [False], len(self._members) - 1

        def note(part: bytes) -> None:
            begun[0] = True
            sink(part)

        for number, member in enumerate(list(self._members)):
            try:
                connection = await self._connect(member)
                (size,) = await connection.call(rpc.SNAPSHOT, [linearizable], _deadline_ms(), note)
                return int(size)
            except NotSent as error:
                failure: StoreError = Unreachable(str(error))
            except (Unreachable, NoLeader, Stopped, ConnectionLost) as error:
                failure = error
            if begun[0] or number == last:
                raise failure
            self._note(failure)
        raise AssertionError("a client has members")

    async def watch_connection(self, attempt: int, avoid: Address | None = None) -> MemberConnection:
        """A connection for a watch; with each attempt the next member's, but not that at `avoid`."""
        start = self._members.index(self._preferred)
        while True:
            member = self._members[(start + attempt) % len(self._members)]
            if member.address == avoid and len(self._members) > 1:
                member = self._members[(start + attempt + 1) % len(self._members)]
            await self._back_off(attempt)
            try:
                return await self._connect(member)
            except Unreachable as error:
                if self._pinned:
                    raise
                self._note(error)
                attempt += 1

    # Inside.

    async def _op(self, op: Op, kind: type[_Result]) -> _Result:
        if self._numbered is not None and isinstance(op, NUMBERED):
            wire = await self._numbered.write(op)
        else:
            wire = await self._call(rpc.OP, [op_to_wire(op)], write=not isinstance(op, READS))
        result = result_from_wire(wire)
        assert isinstance(result, kind)
        return result

    async def _send(self, op: list[Any], doubts: list[StoreError]) -> Any:
        return await self._call(rpc.OP, [op], write=False, doubts=doubts)

    async def _call(
        self,
        method: str,
        arguments: list[Any],
        *,
        write: bool,
        member: Address | str | None = None,
        doubts: list[StoreError] | None = None,
    ) -> Any:
        if member is not None or self._pinned:
            return await self._call_once(await self._find(member), method, arguments)
        attempt = 0
        while True:
            target = self._preferred
            try:
                return await self._call_once(target, method, arguments)
            except (
                NotLeader, NoLeader, Overloaded, Stopped, Unreachable, Unsupported, Indefinite
            ) as error:  # fmt: skip
                if isinstance(error, SessionUnknown) or _needs_an_upgrade(error):
                    raise
                if doubts is not None and isinstance(error, Indefinite):
                    doubts.append(error)
                if write and isinstance(error, Indefinite):
                    if isinstance(error, ConnectionLost):
                        self._turn_from(target, error)
                    raise
                self._turn_from(target, error)
                self._note(error)
            attempt += 1
            await self._back_off(attempt)

    async def _call_once(self, member: _Member, method: str, arguments: list[Any]) -> Any:
        while True:
            connection = await self._connect(member)
            try:
                return await connection.call(method, arguments, _deadline_ms())
            except NotSent:
                continue

    def _turn_from(self, target: _Member, error: StoreError) -> None:
        """Choose whom to ask next, unless another task has chosen already."""
        if self._preferred is not target or isinstance(error, Overloaded | Unsupported):
            return
        leader = error.fields.get("leader") if isinstance(error, NotLeader) else None
        address = error.fields.get("address") if isinstance(error, NotLeader) else None
        if address:
            self._learn([str(address)])
        for member in self._members:
            if leader and (member.name == leader or str(member.address) == address):
                self._preferred = member
                return
        self._preferred = self._members[(self._members.index(target) + 1) % len(self._members)]

    def _learn(self, addresses: Iterable[str]) -> None:
        known = {str(member.address) for member in self._members}
        for text in addresses:
            if text and text not in known:
                self._members.append(_Member(parse_address(text)))

    async def _follow_members(self) -> None:
        """Members come and go: learn the addresses of new ones, forget learnt ones that are gone."""
        while not self._pinned:
            await trio.sleep(_FOLLOW_S)
            if self._preferred.connection is None:
                continue  # nobody asks anything of this client
            with trio.move_on_after(_FOLLOW_S), contextlib.suppress(StoreError):
                listed = {member["client_address"] for member in await self.member_list(serializable=True)}
                self._learn(sorted(listed))
                self._members = [
                    member
                    for member in self._members
                    if member in self._given or member is self._preferred or str(member.address) in listed
                ]

    def _note(self, error: StoreError) -> None:
        if self._on_retry is not None:
            self._on_retry(error.message)

    async def _back_off(self, attempt: int) -> None:
        """The first turns cost nothing: a leader's name was learnt, or another member is tried."""
        if attempt < len(self._members):
            await trio.lowlevel.checkpoint()
        else:
            longest = min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2 ** min(attempt - len(self._members), 10))
            await trio.sleep(longest * self._rng.uniform(0.5, 1.0))

    async def _connect(self, member: _Member) -> MemberConnection:
        connection = member.connection
        if connection is not None and not (connection.closed or connection.leaving):
            return connection
        async with member.dialing:
            connection = member.connection
            if connection is None or connection.closed or connection.leaving:
                connection = await open_connection(
                    self._network, member.address, self._tls, client_name=self._name, nursery=self._nursery
                )
                member.connection, member.name = connection, connection.name
        return connection

    async def _find(self, member: Address | str | None) -> _Member:
        """Raises Unreachable: no member of that name or address was found."""
        if member is None:
            return self._members[0]
        for known in self._members:
            if member in (known.address, str(known.address), known.name):
                return known
        for known in self._members:
            if not known.name:
                try:
                    await self._connect(known)
                except Unreachable:
                    continue
                if known.name == member:
                    return known
        raise Unreachable(f"no member {str(member)!r} was found at the addresses given")

    def _close(self) -> None:
        for member in self._members:
            if member.connection is not None:
                member.connection.close()


def _needs_an_upgrade(error: StoreError) -> bool:
    """The cluster's version is too low, and not only for a moment."""
    return isinstance(error, Unsupported) and "retry_after_s" not in error.fields


def _deadline_ms() -> int:
    """What is left of the caller's deadline; 0 for none, at least 1 otherwise (a cancelled scope's is in the
    infinite past)."""
    left_s = trio.current_effective_deadline() - trio.current_time()
    return 0 if left_s == float("inf") else max(1, int(max(left_s, 0.0) * 1000))
