"""What the API server relies on in its storage; every implementation passes the same tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from raftkube.apiserver.memory_storage import MemoryStorage
from raftkube.apiserver.storage import Storage, StorageWatch, WatchBatch
from raftkube.apiserver.store_storage import StoreStorage
from raftkube.clock import SystemClock
from raftkube.disk import SystemDisk
from raftkube.errors import Compacted, ConnectionLost, LeaseNotFound, RequestTooLarge
from raftkube.net import Address
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng
from raftkube.store.server.member import BoundAddresses, MemberConfig, run_member
from raftkube.wire import rpc
from raftkube.wire.store import (
    DELETE_EVENT,
    PUT_EVENT,
    Compare,
    DeleteRange,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
)

PREFIX, END = b"/registry/", b"/registry0"
LOOPBACK = Address("127.0.0.1", 0)


@asynccontextmanager
async def memory(_: Path | None = None) -> AsyncIterator[MemoryStorage]:
    async with trio.open_nursery() as nursery:
        storage = MemoryStorage(seeded_rng(7))
        await nursery.start(storage.run)
        yield storage
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def store(directory: Path) -> AsyncIterator[StoreStorage]:
    """A whole member of the real store, with its journal on disk."""
    network = TcpNetwork()
    listener = await network.listen(LOOPBACK, None)
    await listener.aclose()  # its port was free a moment ago
    config = MemberConfig(
        name="store-1",
        members={"store-1": listener.address},
        listen_client=LOOPBACK,
        listen_peer=listener.address,
    )

    async def run(*, task_status: trio.TaskStatus[BoundAddresses]) -> None:
        disk = SystemDisk(str(directory))
        try:
            await run_member(
                config, network=network, clock=SystemClock(), rng=seeded_rng(1), disk=disk,
                task_status=task_status,
            )  # fmt: skip
        finally:
            disk.close()

    async with trio.open_nursery() as nursery:
        bound = await nursery.start(run)
        async with StoreStorage.open(
            network, [bound.client], None, name="test", clock=SystemClock(), rng=seeded_rng(2)
        ) as storage:
            yield storage
        nursery.cancel_scope.cancel()


STORAGES = {"memory": memory, "store": store}


@pytest.fixture(params=STORAGES.values(), ids=STORAGES.keys())
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with request.param(tmp_path) as opened:
        yield opened


async def put(storage: Storage, name: str, value: bytes = b"{}") -> int:
    return (await storage.txn(Txn((), (Put(PREFIX + name.encode(), value),)))).revision


async def collect(watch: StorageWatch, revision: int) -> list[WatchBatch]:
    """Batches until everything up to `revision` was delivered."""
    batches = []
    with trio.fail_after(20):
        async for batch in watch:
            batches.append(batch)
            if batch.revision >= revision:
                return batches
    raise AssertionError("the watch ended")


async def test_create_only_if_absent(storage: Storage) -> None:
    absent = Compare(PREFIX + b"a", "mod", "=", 0)
    request = Txn((absent,), (Put(PREFIX + b"a", b"1"),), (Range(PREFIX + b"a"),))
    first = await storage.txn(request)
    assert first.succeeded
    assert first.responses == (PutResult(first.revision),)
    second = await storage.txn(request)
    assert not second.succeeded
    found = second.responses[0]
    assert isinstance(found, RangeResult)
    assert found.kvs[0].value == b"1"
    assert found.kvs[0].mod_revision == first.revision == second.revision


async def test_a_deletion_whose_answer_was_lost_is_not_answered_with_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store(tmp_path) as storage:
        revision = await put(storage, "a")
        answer_once, lost = storage._client._call_once, []

        async def lose_the_first(*call: Any) -> Any:
            answer = await answer_once(*call)
            if call[1] == rpc.OP and not lost:
                lost.append(answer)
                raise ConnectionLost("committed, then disconnected")
            return answer

        monkeypatch.setattr(storage._client, "_call_once", lose_the_first)
        unchanged = Compare(PREFIX + b"a", "mod", "=", revision)
        result = await storage.txn(Txn((unchanged,), (DeleteRange(PREFIX + b"a"),)))
        assert lost
        assert result.succeeded, "sent again, it would find that somebody has deleted it: itself"


async def test_range_pages_at_a_pinned_revision(storage: Storage) -> None:
    for name in "abcd":
        await put(storage, name)
    first = await storage.range(Range(PREFIX, END, limit=2))
    assert ([kv.key for kv in first.kvs], first.count, first.more) == (
        [PREFIX + b"a", PREFIX + b"b"],
        4,
        True,
    )
    await storage.txn(Txn((), (DeleteRange(PREFIX, END),)))
    rest = await storage.range(Range(PREFIX + b"b\x00", END, revision=first.revision))
    assert [kv.key for kv in rest.kvs] == [PREFIX + b"c", PREFIX + b"d"]
    assert (await storage.range(Range(PREFIX, END))).kvs == ()


async def test_current_revision_covers_what_was_written(storage: Storage) -> None:
    before = await storage.current_revision()
    written = await put(storage, "a")
    assert before < written <= await storage.current_revision()


async def test_watch_has_whole_revisions_in_order_with_previous_values(storage: Storage) -> None:
    start = await storage.current_revision() + 1
    await put(storage, "a", b"1")
    both = Txn((), (Put(PREFIX + b"a", b"2"), Put(PREFIX + b"b", b"3")))
    await storage.txn(both)
    last = (await storage.txn(Txn((), (DeleteRange(PREFIX + b"a"),)))).revision
    async with storage.watch(PREFIX, END, start_revision=start) as watch:
        batches = await collect(watch, last)
    events = [event for batch in batches for event in batch.events]
    shown = [(e.type, e.kv.key[-1:], e.kv.value, e.prev_kv.value if e.prev_kv else None) for e in events]
    assert shown == [
        (PUT_EVENT, b"a", b"1", None),
        (PUT_EVENT, b"a", b"2", b"1"),
        (PUT_EVENT, b"b", b"3", None),
        (DELETE_EVENT, b"a", b"", b"2"),
    ]
    assert [e.kv.mod_revision for e in events] == [start, start + 1, start + 1, last]


async def test_watch_sees_later_writes_and_only_its_range(storage: Storage) -> None:
    start = await storage.current_revision() + 1
    async with storage.watch(PREFIX, END, start_revision=start) as watch:
        await storage.txn(Txn((), (Put(b"/other", b"x"),)))
        last = await put(storage, "a")
        batches = await collect(watch, last)
    assert [event.kv.key for batch in batches for event in batch.events] == [PREFIX + b"a"]


async def test_progress_is_ordered_after_all_events_before_the_request(storage: Storage) -> None:
    start = await storage.current_revision() + 1
    async with storage.watch(PREFIX, END, start_revision=start) as watch:
        await put(storage, "a")
        elsewhere = (await storage.txn(Txn((), (Put(b"/other", b"x"),)))).revision
        marked = await watch.request_progress()
        assert marked >= elsewhere
        batches = await collect(watch, marked)
    assert batches[-1].revision >= elsewhere
    assert [event.kv.key for batch in batches for event in batch.events] == [PREFIX + b"a"]


async def test_progress_of_an_idle_range(storage: Storage) -> None:
    revision = await storage.current_revision()
    async with storage.watch(PREFIX, END, start_revision=revision + 1) as watch:
        assert await watch.request_progress() == revision
        assert (await collect(watch, revision))[-1].events == ()


async def test_a_leased_key_goes_with_its_lease(storage: Storage) -> None:
    lease = await storage.lease_grant(60)
    await storage.txn(Txn((), (Put(PREFIX + b"l", b"x", lease),)))
    assert (await storage.range(Range(PREFIX + b"l"))).kvs[0].lease == lease
    await storage.lease_revoke(lease)
    assert (await storage.range(Range(PREFIX + b"l"))).kvs == ()
    await storage.lease_revoke(lease)


async def test_renew_writes_and_keeps_the_lease_if_the_compares_hold(storage: Storage) -> None:
    lease = await storage.lease_grant(60)
    key = PREFIX + b"l"
    created = (await storage.txn(Txn((), (Put(key, b"1", lease),)))).revision
    renewed = await storage.renew(lease, [Compare(key, "create", "=", created)], Put(key, b"2"))
    assert renewed.succeeded
    found = (await storage.range(Range(key))).kvs[0]
    assert (found.value, found.lease, found.create_revision) == (b"2", lease, created)
    refused = await storage.renew(lease, [Compare(key, "create", "=", created + 1)], Put(key, b"3"))
    assert not refused.succeeded
    assert (await storage.range(Range(key))).kvs[0].value == b"2"


async def test_renew_of_a_lease_that_is_gone(storage: Storage) -> None:
    with pytest.raises(LeaseNotFound):
        await storage.renew(12345, [], Put(PREFIX + b"l", b"x"))


async def test_too_large_is_definite(storage: Storage) -> None:
    with pytest.raises(RequestTooLarge):
        await storage.txn(Txn((), (Put(PREFIX + b"big", b"x" * 2_000_000),)))
    assert (await storage.range(Range(PREFIX + b"big"))).kvs == ()


async def test_expiry_deletes_the_key_and_renewal_puts_it_off(autojump_clock: trio.testing.MockClock) -> None:
    async with memory() as storage:
        lease = await storage.lease_grant(10)
        key = PREFIX + b"l"
        start = (await storage.txn(Txn((), (Put(key, b"1", lease),)))).revision
        await trio.sleep(8)
        await storage.renew(lease, [], Put(key, b"2"))
        await trio.sleep(8)
        assert (await storage.range(Range(key))).kvs[0].value == b"2"
        async with storage.watch(PREFIX, END, start_revision=start + 2) as watch:
            batches = await collect(watch, start + 2)
        assert batches[0].events[0].type == DELETE_EVENT
        assert trio.current_time() >= 18


async def test_watch_from_a_compacted_revision() -> None:
    async with memory() as storage:
        for name in "abc":
            last = await put(storage, name)
        await storage.compact(last)
        async with storage.watch(PREFIX, END, start_revision=2) as watch:
            with pytest.raises(Compacted):
                await collect(watch, last)
