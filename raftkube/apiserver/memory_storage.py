"""Storage inside this process, over the store's own state machine: for tests and single-process clusters.

Any number of API servers may share one; each operation is one step, so it is linearizable by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from raftkube.apiserver.storage import StorageWatch, WatchBatch
from raftkube.errors import LeaseNotFound, StoreError
from raftkube.rng import Rng, system_rng
from raftkube.store.core.machine import StateMachine
from raftkube.types import Revision
from raftkube.wire.store import (
    Compact,
    Compare,
    Event,
    LeaseExpire,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    Op,
    Put,
    Range,
    RangeResult,
    Txn,
    TxnResult,
)

_BATCH_EVENTS: Final = 1_000


class MemoryStorage:
    """`Storage` without a network. Leases expire only while `run` runs."""

    def __init__(self, rng: Rng | None = None) -> None:
        self._machine = StateMachine()
        self._rng = rng or system_rng()
        self._changed = trio.Event()
        self._deadlines: dict[int, tuple[float, int]] = {}  # lease → (when, renewal), ttl is the machine's
        self._leases_changed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Expire leases when their time is up, until cancelled."""
        task_status.started()
        while True:
            self._leases_changed = trio.Event()
            next_at = min((at for at, _ in self._deadlines.values()), default=float("inf"))
            with trio.move_on_at(next_at):
                await self._leases_changed.wait()
            self._expire_due()

    async def range(self, request: Range) -> RangeResult:
        await trio.lowlevel.checkpoint()
        result = self._machine.read(request)
        assert isinstance(result, RangeResult)
        return result

    async def txn(self, request: Txn) -> TxnResult:
        await trio.lowlevel.checkpoint()
        result = self._apply(request)
        self._note_renewals(request, result)
        assert isinstance(result, TxnResult)
        return result

    async def lease_grant(self, ttl_s: int) -> int:
        await trio.lowlevel.checkpoint()
        lease = self._rng.getrandbits(62) + 1
        self._apply(LeaseGrant(lease, ttl_s))
        self._extend(lease)
        return lease

    async def lease_revoke(self, lease: int) -> None:
        await trio.lowlevel.checkpoint()
        try:
            self._apply(LeaseRevoke(lease))
        except LeaseNotFound:
            pass
        self._deadlines.pop(lease, None)

    async def renew(self, lease: int, compares: Sequence[Compare], put: Put) -> TxnResult:
        put = put._replace(lease=lease)
        return await self.txn(Txn(tuple(compares), (LeaseKeepAlive(lease), put)))

    async def current_revision(self) -> int:
        await trio.lowlevel.checkpoint()
        return int(self._machine.revision)

    @asynccontextmanager
    async def watch(
        self, key: bytes, range_end: bytes, *, start_revision: int
    ) -> AsyncIterator[StorageWatch]:
        await trio.lowlevel.checkpoint()
        yield _MemoryWatch(self, key, range_end, start_revision - 1)

    async def compact(self, revision: int) -> None:
        """Forget what is older than `revision`."""
        await trio.lowlevel.checkpoint()
        self._apply(Compact(revision))

    async def wait_beyond(self, revision: int) -> None:
        """Wait until there is a revision above `revision`."""
        while self._machine.revision <= revision:
            await self._changed.wait()

    @property
    def machine(self) -> StateMachine:
        """The state itself, for watches and tests."""
        return self._machine

    def _apply(self, op: Op) -> Any:
        result = self._machine.apply(op)
        if isinstance(result, StoreError):
            raise result
        if self._machine.take_events():
            self._changed.set()
            self._changed = trio.Event()
        return result

    def _note_renewals(self, request: Txn, result: TxnResult) -> None:
        for op in request.success if result.succeeded else request.failure:
            if isinstance(op, LeaseGrant | LeaseKeepAlive):
                self._extend(op.lease)

    def _extend(self, lease: int) -> None:
        for view in self._machine.leases():
            if view.lease == lease:
                self._deadlines[lease] = (trio.current_time() + view.ttl_s, view.renewal)
        self._leases_changed.set()

    def _expire_due(self) -> None:
        now = trio.current_time()
        for lease, (deadline, renewal) in list(self._deadlines.items()):
            if deadline <= now:
                del self._deadlines[lease]
                self._apply(LeaseExpire(lease, renewal))


class _MemoryWatch:
    """Reads the machine's history from a cursor: no queue per watcher."""

    def __init__(self, storage: MemoryStorage, key: bytes, range_end: bytes, after: int) -> None:
        self._storage = storage
        self._key = key
        self._range_end = range_end
        self._after = after
        self._progress_wanted = trio.Event()

    async def request_progress(self) -> int:
        await trio.lowlevel.checkpoint()
        self._progress_wanted.set()
        return int(self._storage.machine.revision)

    async def __aiter__(self) -> AsyncIterator[WatchBatch]:
        machine = self._storage.machine
        while True:
            await trio.lowlevel.checkpoint()
            asked = self._progress_wanted.is_set()
            if self._after >= machine.revision and not asked:
                await self._wait()
                continue
            found = machine.events_between(Revision(self._after), self._key, self._range_end, _BATCH_EVENTS)
            self._after = int(found.through)
            events: tuple[Event, ...] = tuple(event for _, batch in found.revisions for event in batch)
            caught_up = self._after >= machine.revision
            if events or (asked and caught_up):
                if caught_up:
                    self._progress_wanted = trio.Event()
                yield WatchBatch(max(self._after, 0), events)

    async def _wait(self) -> None:
        """Until there is something new, or progress is asked for."""

        async def progress() -> None:
            await self._progress_wanted.wait()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(progress)
            await self._storage.wait_beyond(self._after)
            nursery.cancel_scope.cancel()
