"""A watch that goes on: over lost connections, ended watches and slow readers, without gap or duplicate."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple, Protocol

import trio

from raftkube.errors import ConnectionLost, InvalidRequest, NoLeader, Stopped, StoreError, WatchEnded
from raftkube.net import Address
from raftkube.store.client.connection import MemberConnection, NotSent
from raftkube.wire import rpc
from raftkube.wire.store import Event

# A reader that leaves more than this unread is detached, and resumes from where it stopped reading.
_UNREAD_BYTES_MAX: Final = 16 * 1024 * 1024
_UNREAD_BATCHES_MAX: Final = 4_096


class WatchBatch(NamedTuple):
    """All events up to `revision` that were not delivered before, in order (each event's `kv.mod_revision`
    is its own revision; a batch never ends inside a revision). Without events: a progress mark."""

    revision: int
    events: tuple[Event, ...]


class WatchOptions(NamedTuple):
    """What `StoreClient.watch` was asked for."""

    key: bytes
    range_end: bytes
    start_revision: int
    prev_kv: bool
    progress_notify: bool
    no_put: bool
    no_delete: bool
    resume: bool


class Attacher(Protocol):
    """How a watch gets a connection."""

    async def watch_connection(self, attempt: int, avoid: Address | None = None) -> MemberConnection:
        """A connection to some member, another one with each attempt, not to the one at `avoid` if there is
        any other. Waits between attempts."""
        ...


class Watch:
    """An async iterator of WatchBatch; made by `StoreClient.watch`, for one reader.

    Iterating raises Compacted when the next revision is gone, and what the member refused the watch
    with. Unless `resume` was asked for, also WatchEnded and ConnectionLost.
    """

    def __init__(self, attacher: Attacher, options: WatchOptions) -> None:
        self._attacher = attacher
        self._options = options
        self._next = options.start_revision  # 0 until the first answer
        self._mark_wanted = 0
        self._connection: MemberConnection | None = None
        self._watch_id = 0
        self._avoid: Address | None = None  # a member that heard no leader
        self._unread: deque[tuple[WatchBatch, int]] = deque()
        self._unread_bytes = 0
        self._error: StoreError | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._attaching = trio.Lock()

    @property
    def next_revision(self) -> int:
        """Everything below it has been received (delivered or still unread)."""
        return self._next

    @property
    def member(self) -> str:
        """The name of the member that feeds it now; empty while there is none."""
        return "" if self._connection is None else self._connection.name

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> WatchBatch:
        await trio.lowlevel.checkpoint()
        while not self._unread:
            if self._error is not None:
                raise self._error
            if self._connection is None:
                await self.attach()
            else:
                await self._changed.park()
        batch, size_bytes = self._unread.popleft()
        self._unread_bytes -= size_bytes
        return batch

    async def request_progress(self) -> int:
        """Ask for a mark; a batch of at least the returned revision follows all events up to it.

        The revision is the store's newest at a moment after the call (linearizable).
        """
        attempt = 0
        while True:
            if self._error is not None:
                raise self._error
            await self.attach()
            connection, watch_id = self._connection, self._watch_id
            if connection is None:
                continue
            try:
                (revision,) = await connection.call(rpc.WATCH_PROGRESS, [watch_id])
                self._mark_wanted = max(self._mark_wanted, revision)
                return int(revision)
            except InvalidRequest:
                pass  # the watch was ended meanwhile
            except (NotSent, StoreError) as error:
                if isinstance(error, StoreError) and not self._options.resume:
                    raise
                if isinstance(error, NoLeader) and connection is self._connection:
                    self._avoid = connection.address
                    self.detach()
            attempt += 1
            await trio.sleep(min(0.2, 0.01 * 2**attempt))

    async def attach(self) -> None:
        """Be fed by some member, from the next revision on; at once if that is so already."""
        attempt = 0
        async with self._attaching:
            while self._connection is None and self._error is None:
                connection = await self._attacher.watch_connection(attempt, self._avoid)
                attempt += 1
                await self._create(connection)

    def detach(self) -> None:
        """Stop being fed; the next `attach` goes on from where this stopped."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_watch(self._watch_id)

    async def _create(self, connection: MemberConnection) -> None:
        watch_id = connection.add_watch(self)
        self._connection, self._watch_id = connection, watch_id
        asked = self._options
        arguments: list[Any] = [
            watch_id, asked.key, asked.range_end, self._next, asked.prev_kv, asked.progress_notify,
            asked.no_put, asked.no_delete,
        ]  # fmt: skip
        try:
            (revision,) = await connection.call(rpc.WATCH_CREATE, arguments)
        except (NotSent, ConnectionLost, Stopped):
            self._connection = None
            connection.remove_watch(watch_id)
            return
        except BaseException:
            self.detach()
            raise
        if not self._next:
            self._next = revision + 1
        if self._mark_wanted >= self._next:
            connection.tell(rpc.WATCH_PROGRESS, [watch_id])

    # Called by the connection.

    def on_batch(self, revision: int, events: tuple[Event, ...], size_bytes: int) -> None:
        self._next = max(self._next, revision + 1)
        self._unread.append((WatchBatch(revision, events), size_bytes))
        self._unread_bytes += size_bytes
        if self._unread_bytes > _UNREAD_BYTES_MAX or len(self._unread) > _UNREAD_BATCHES_MAX:
            self.detach()
        self._changed.unpark_all()

    def on_ended(self, error: StoreError) -> None:
        if self._connection is not None and error.fields.get("reason") == "no-leader":
            self._avoid = self._connection.address
        self._connection = None
        if not (isinstance(error, WatchEnded) and self._options.resume):
            self._error = error
        self._changed.unpark_all()

    def on_lost(self) -> None:
        self._connection = None
        if not self._options.resume:
            self._error = ConnectionLost("the connection that fed the watch was lost")
        self._changed.unpark_all()
