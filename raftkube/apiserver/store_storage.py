"""Storage over raftkube's own store: a thin translation, with a deadline on everything.

Writes are numbered in a session of the store: until the deadline one is sent again whatever became of its
answer, and takes effect once. A client that asks for a deletion while the leader dies hears "deleted", not
that nobody knows, nor "not found" at its own second try. After the deadline a read is refused as
unavailable, and a write is indefinite.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import trio

from raftkube.apiserver.storage import StorageWatch, WatchBatch
from raftkube.clock import Clock
from raftkube.errors import LeaseNotFound, NoLeader, ProposalTimeout
from raftkube.net import Address, Network, TlsFiles
from raftkube.rng import Rng
from raftkube.store.client.client import StoreClient
from raftkube.store.client.watch import Watch
from raftkube.wire.store import Compare, LeaseKeepAlive, Put, Range, RangeResult, Txn, TxnResult

REQUEST_TIMEOUT_S: Final = 10.0
_Answer = TypeVar("_Answer")


class StoreStorage:
    """`Storage` over an open StoreClient, which it does not close."""

    def __init__(self, client: StoreClient, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._client = client
        self._timeout_s = timeout_s

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        network: Network,
        addresses: Sequence[Address],
        tls: TlsFiles | None,
        *,
        name: str,
        clock: Clock,
        rng: Rng,
    ) -> AsyncIterator[StoreStorage]:
        """Over a client of its own of the store's members at `addresses`."""
        async with StoreClient.open(
            network, addresses, tls, name=name, clock=clock, rng=rng, exactly_once=True
        ) as client:
            yield cls(client)

    async def range(self, request: Range) -> RangeResult:
        return await self._read(lambda: self._client.range(request))

    async def txn(self, request: Txn) -> TxnResult:
        return await self._write(lambda: self._client.txn(request))

    async def lease_grant(self, ttl_s: int) -> int:
        return (await self._write(lambda: self._client.lease_grant(ttl_s))).lease

    async def lease_revoke(self, lease: int) -> None:
        try:
            await self._write(lambda: self._client.lease_revoke(lease))
        except LeaseNotFound:
            pass

    async def renew(self, lease: int, compares: Sequence[Compare], put: Put) -> TxnResult:
        # One command in our store; over etcd this is a new lease that the key is put with.
        success = (LeaseKeepAlive(lease), put._replace(lease=lease))
        return await self.txn(Txn(tuple(compares), success))

    async def current_revision(self) -> int:
        # Any linearizable read carries the store's revision; this one asks for no data.
        return (await self.range(Range(b"/", count_only=True))).revision

    @asynccontextmanager
    async def watch(
        self, key: bytes, range_end: bytes, *, start_revision: int
    ) -> AsyncIterator[StorageWatch]:
        async with self._client.watch(key, range_end, start_revision, prev_kv=True) as watch:
            yield _StoreWatch(watch)

    async def _read(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        try:
            with trio.fail_after(self._timeout_s):
                return await ask()
        except trio.TooSlowError as error:
            raise NoLeader(f"the store did not answer within {self._timeout_s:g} s") from error

    async def _write(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        try:
            with trio.fail_after(self._timeout_s):
                return await ask()
        except trio.TooSlowError as error:
            raise ProposalTimeout(f"the store did not answer within {self._timeout_s:g} s") from error


class _StoreWatch:
    """The client's watch with this layer's batch type."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    async def request_progress(self) -> int:
        return await self._watch.request_progress()

    async def __aiter__(self) -> AsyncIterator[WatchBatch]:
        async for batch in self._watch:
            yield WatchBatch(batch.revision, batch.events)
