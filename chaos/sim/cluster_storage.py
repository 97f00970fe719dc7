"""The storage of a simulated API server: every write is written down with the request that it belongs to, and
the feed of its watch cache can be held back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from chaos.recording import MemoryRecorder
from chaos.sim.cluster_door import REQUEST
from raftkube.apiserver.storage import Storage, StorageWatch, WatchBatch
from raftkube.errors import StoreError
from raftkube.wire.store import Compare, DeleteRange, Put, Range, RangeResult, Txn, TxnResult


class RecordedStorage:
    """Implements `raftkube.apiserver.storage.Storage` over another one. Operations of kind `write` name the
    request (`api`), what each key was compared with, and the keys that were put and deleted."""

    def __init__(self, storage: Storage, recorder: MemoryRecorder) -> None:
        self._storage = storage
        self._recorder = recorder
        self._flowing = trio.Event()
        self._flowing.set()

    def hold_feed(self) -> None:
        """No event reaches the watch cache until `release_feed`: the server is stale."""
        if self._flowing.is_set():
            self._flowing = trio.Event()

    def release_feed(self) -> None:
        self._flowing.set()

    async def range(self, request: Range) -> RangeResult:
        return await self._storage.range(request)

    async def txn(self, request: Txn) -> TxnResult:
        if not request.success:
            return await self._storage.txn(request)
        record = self._record(request.compares, request.success)
        try:
            result = await self._storage.txn(request)
            self._answered(record, result)
        finally:
            self._recorder.write(record)
        return result

    async def lease_grant(self, ttl_s: int) -> int:
        return await self._storage.lease_grant(ttl_s)

    async def lease_revoke(self, lease: int) -> None:
        await self._storage.lease_revoke(lease)

    async def renew(self, lease: int, compares: Sequence[Compare], put: Put) -> TxnResult:
        record = self._record(compares, (put,))
        try:
            result = await self._storage.renew(lease, compares, put)
            self._answered(record, result)
        finally:
            self._recorder.write(record)
        return result

    async def current_revision(self) -> int:
        return await self._storage.current_revision()

    @asynccontextmanager
    async def watch(
        self, key: bytes, range_end: bytes, *, start_revision: int
    ) -> AsyncIterator[StorageWatch]:
        async with self._storage.watch(key, range_end, start_revision=start_revision) as watch:
            yield _HeldWatch(watch, self)

    def _record(self, compares: Sequence[Compare], success: Sequence[Any]) -> dict[str, Any]:
        request = {
            "api": REQUEST.get(),
            "compares": [[c.key.decode(), c.target, c.operand] for c in compares],
            "puts": [op.key.decode() for op in success if isinstance(op, Put)],
            "deletes": [op.key.decode() for op in success if isinstance(op, DeleteRange)],
        }
        return {
            "type": "op", "client": 0, "id": 0, "kind": "write", "request": request, "error": None,
            "call_ns": self._recorder.now_ns(), "outcome": "unknown",
        }  # fmt: skip

    def _answered(self, record: dict[str, Any], result: TxnResult) -> None:
        record["outcome"] = "ok" if result.succeeded else "fail"
        record["revision"] = result.revision
        record["return_ns"] = self._recorder.now_ns()


class _HeldWatch:
    """A watch whose batches wait while the feed is held."""

    def __init__(self, watch: StorageWatch, storage: RecordedStorage) -> None:
        self._watch = watch
        self._storage = storage

    async def request_progress(self) -> int:
        return await self._watch.request_progress()

    async def __aiter__(self) -> AsyncIterator[WatchBatch]:
        async for batch in self._watch:
            while not self._storage._flowing.is_set():
                await self._storage._flowing.wait()
            yield batch


__all__ = ["RecordedStorage", "StoreError"]
