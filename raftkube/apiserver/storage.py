"""What the API server asks of its storage: no more than etcd v3 promises.

`store_storage` talks to raftkube's store, `memory_storage` keeps everything in this process for tests;
both pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from raftkube.wire.store import Compare, Event, KeyValue, Put, Range, RangeResult, Txn, TxnResult


class WatchBatch(NamedTuple):
    """All events of one or more whole revisions up to `revision`; without events it is a progress mark:
    everything up to `revision` has been delivered."""

    revision: int
    events: tuple[Event, ...]


class StorageWatch(Protocol):
    """A watch that follows a range and survives the loss of a store member without gap or duplicate.

    Iterating raises Compacted when the next revision is gone.
    """

    def __aiter__(self) -> AsyncIterator[WatchBatch]: ...

    async def request_progress(self) -> int:
        """Ask for a progress mark; returns the store's revision at a moment after the call (linearizable).

        A batch of at least that revision follows, behind every event up to it.
        """
        ...


class Storage(Protocol):
    """Errors are those of `raftkube.errors.StoreError`: definite or indefinite, as data."""

    async def range(self, request: Range) -> RangeResult:
        """A linearizable read."""
        ...

    async def txn(self, request: Txn) -> TxnResult:
        """One transaction; after an indefinite error it may or may not have happened."""
        ...

    async def lease_grant(self, ttl_s: int) -> int:
        """A new lease; its id."""
        ...

    async def lease_revoke(self, lease: int) -> None:
        """End a lease; keys attached to it are deleted. A lease that is gone is not an error."""
        ...

    async def renew(self, lease: int, compares: Sequence[Compare], put: Put) -> TxnResult:
        """Keep `lease` alive and write `put` (attached to it) in one step, if all compares hold."""
        ...

    async def current_revision(self) -> int:
        """The store's revision, linearizable."""
        ...

    def watch(
        self, key: bytes, range_end: bytes, *, start_revision: int
    ) -> AbstractAsyncContextManager[StorageWatch]:
        """Events of [key, range_end) from `start_revision` on, with prev_kv."""
        ...


__all__ = ["Compare", "Event", "KeyValue", "Put", "Range", "Storage", "StorageWatch", "Txn", "WatchBatch"]
