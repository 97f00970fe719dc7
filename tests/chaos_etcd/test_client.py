"""The client of etcd: the store's interface on three real members, and what it does when one is lost."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from chaos.etcd.client import EtcdClient
from chaos.etcd.cluster import EtcdCluster, running
from chaos.etcd.watch import EtcdWatch
from raftkube.errors import (
    Compacted,
    ConfigError,
    ConnectionLost,
    DuplicateKey,
    FutureRevision,
    Indefinite,
    InvalidRequest,
    LeaseExists,
    LeaseNotFound,
    Unreachable,
)
from raftkube.net import Address
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import WatchBatch
from raftkube.wire.store import (
    DELETE_EVENT,
    PUT_EVENT,
    Compare,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
)

Handler = Callable[[trio.SocketStream, bytes], Awaitable[None]]


@asynccontextmanager
async def etcd(tmp_path: Path) -> AsyncIterator[tuple[EtcdCluster, EtcdClient]]:
    with trio.fail_after(120):
        async with running(tmp_path / "cluster", random.Random()) as cluster:
            async with EtcdClient.open(TcpNetwork(), cluster.addresses, rng=random.Random(1)) as client:
                yield cluster, client


async def read_events(watch: EtcdWatch, count: int) -> list[WatchBatch]:
    """Batches with `count` events in all; progress marks are passed over."""
    batches: list[WatchBatch] = []
    with trio.fail_after(30):
        while sum(len(batch.events) for batch in batches) < count:
            batch = await anext(watch)
            if batch.events:
                batches.append(batch)
    return batches


@pytest.mark.e2e
async def test_the_stores_interface_on_a_real_etcd(tmp_path: Path) -> None:
    async with etcd(tmp_path) as (cluster, client):
        await _keys(client)
        await _transactions(client)
        await _leases(client)
        await _history_and_compaction(client)
        await _members(cluster, client)


async def _keys(client: EtcdClient) -> None:
    assert await client.put(b"/a", b"\xff\x00", prev_kv=True) == PutResult(2, None)
    first = KeyValue(b"/a", b"\xff\x00", 2, 2, 1, 0)
    assert await client.put(b"/a", b"y", prev_kv=True) == PutResult(3, first)
    second = KeyValue(b"/a", b"y", 2, 3, 2, 0)
    assert await client.get(b"/a") == second
    assert await client.get(b"/none") is None
    assert await client.range(Range(b"\0", b"\0")) == RangeResult(3, (second,), 1)
    assert await client.delete(b"/none") == DeleteRangeResult(3, 0)
    assert await client.delete(b"/a", prev_kv=True) == DeleteRangeResult(4, 1, (second,))
    with pytest.raises(InvalidRequest):
        await client.put(b"", b"x")


async def _transactions(client: EtcdClient) -> None:
    create = Txn(
        (Compare(b"/t", "create", "=", 0),),
        (Put(b"/t", b"1", prev_kv=True), Put(b"/u", b"2"), DeleteRange(b"/none"), Range(b"/t")),
        (Range(b"/t"),),
    )
    created = KeyValue(b"/t", b"1", 5, 5, 1, 0)
    done = await client.txn(create)
    assert (done.revision, done.succeeded) == (5, True)
    assert [type(item).__name__ for item in done.responses] == [
        "PutResult", "PutResult", "DeleteRangeResult", "RangeResult",
    ]  # fmt: skip
    assert done.responses[3].kvs == (created,)
    again = await client.txn(create)
    assert (again.revision, again.succeeded, again.responses[0].kvs) == (5, False, (created,))
    by_value = Txn((Compare(b"/t", "value", "=", b"1"), Compare(b"/", "version", ">", 0, b"0")), (), ())
    assert (await client.txn(by_value)).succeeded
    with pytest.raises(DuplicateKey):
        await client.txn(Txn((), (Put(b"/t", b"1"), Put(b"/t", b"2"))))


async def _leases(client: EtcdClient) -> None:
    assert (await client.lease_grant(60, 77)).lease == 77
    with pytest.raises(LeaseExists):
        await client.lease_grant(60, 77)
    await client.put(b"/leased", b"x", 77)
    assert (await client.lease_keep_alive(77)).ttl_s == 60
    assert (await client.lease_time_to_live(77, keys=True)).keys == (b"/leased",)
    assert 77 in (await client.leases()).leases
    await client.lease_revoke(77)
    assert await client.get(b"/leased") is None
    for gone in (client.lease_keep_alive(77), client.lease_revoke(77), client.put(b"/leased", b"x", 77)):
        with pytest.raises(LeaseNotFound):
            await gone


async def _history_and_compaction(client: EtcdClient) -> None:
    newest = (await client.range(Range(b"/", count_only=True))).revision
    assert (await client.range(Range(b"/a", revision=2))).kvs[0].value == b"\xff\x00"
    with pytest.raises(FutureRevision):
        await client.range(Range(b"/a", revision=newest + 100))
    async with client.watch(b"/", b"0", 2, prev_kv=True) as watch:
        batches = await read_events(watch, 7)
        events = [event for batch in batches for event in batch.events]
        assert [event.kv.mod_revision for event in events] == [2, 3, 4, 5, 5, 6, 7]
        assert [event.type for event in events[:3]] == [PUT_EVENT, PUT_EVENT, DELETE_EVENT]
        assert [event.prev_kv and event.prev_kv.value for event in events[:3]] == [None, b"\xff\x00", b"y"]
        assert watch.next_revision == newest + 1
    await client.compact(4)
    with pytest.raises(Compacted):
        await client.range(Range(b"/a", revision=2))
    with pytest.raises(Compacted):
        await client.compact(3)
    with pytest.raises(Compacted) as gone:
        async with client.watch(b"/", b"0", 2) as watch:
            await read_events(watch, 1)
    assert gone.value.fields == {"compact_revision": 4}


async def _members(cluster: EtcdCluster, client: EtcdClient) -> None:
    """Every member has the same hash; each answers from its own state when asked to."""
    put = await client.put(b"/last", b"x")
    with trio.fail_after(30):
        for name in cluster.names:
            while True:
                told = await client.range(Range(b"/last"), serializable=True, member=cluster.address(name))
                if told.revision == put.revision:
                    break
                await trio.sleep(0.02)
        hashes = [await cluster.hash_at(name, put.revision) for name in cluster.names]
    assert hashes[0] is not None
    assert hashes[0].compact_revision == 4
    assert hashes == [hashes[0]] * 3
    assert await cluster.hash_at("etcd-1", put.revision + 100) is None
    with pytest.raises(InvalidRequest):
        await client.range(Range(b"/last"), member="127.0.0.1:1")


async def put_surely(client: EtcdClient, value: bytes) -> None:
    """Again while its outcome is unknown, as of one that a paused member has; the caller bounds it."""
    while True:
        try:
            with trio.move_on_after(5):
                await client.put(b"/k", value)
                return
        except Indefinite:
            await trio.sleep(0.05)


async def read_until(watch: EtcdWatch, value: bytes) -> list[int]:
    """The revisions of the events up to that of `value`."""
    revisions: list[int] = []
    with trio.fail_after(30):
        async for batch in watch:
            revisions += [event.kv.mod_revision for event in batch.events]
            if any(event.kv.value == value for event in batch.events):
                return revisions
    raise AssertionError("a watch has no end")


@pytest.mark.e2e
async def test_members_are_killed_paused_and_restarted(tmp_path: Path) -> None:
    """A watch goes on at other members, from the next revision on: no gap, nothing twice."""
    attached: list[Address] = []
    async with running(tmp_path / "cluster", random.Random()) as cluster:
        async with EtcdClient.open(
            TcpNetwork(), cluster.addresses, rng=random.Random(1),
            on_attach=lambda key, address, revision: attached.append(address),
        ) as client:  # fmt: skip
            with trio.fail_after(100):
                async with client.watch(b"/", b"0", 2, prev_kv=True, progress_notify=True) as watch:
                    await put_surely(client, b"1")
                    revisions = await read_until(watch, b"1")
                    await cluster.kill("etcd-1")  # asked first, and feeding the watch
                    assert cluster.ended() == ["etcd-1"]
                    await put_surely(client, b"2")
                    revisions += await read_until(watch, b"2")
                    cluster.start("etcd-1")
                    await cluster.wait_for_leader(60)
                    cluster.pause("etcd-2")
                    while await cluster.state("etcd-2") is not None:  # the signal is on its way
                        await trio.sleep(0.01)
                    await put_surely(client, b"3")
                    cluster.resume("etcd-2")
                    await cluster.stop("etcd-3")
                    await put_surely(client, b"4")
                    revisions += await read_until(watch, b"4")
                    cluster.start("etcd-3")
                    await cluster.wait_for_leader(60)
    assert revisions == list(range(2, 2 + len(revisions)))
    assert attached[0] == cluster.address("etcd-1")
    assert len(attached) > 1


@asynccontextmanager
async def members(*handlers: Handler) -> AsyncIterator[list[Address]]:
    """Servers on loopback that read a request and do what their handler does."""
    async with trio.open_nursery() as nursery:
        addresses = []
        for handler in handlers:

            async def serve(stream: trio.SocketStream, handler: Handler = handler) -> None:
                async with stream:
                    with contextlib.suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                        while request := await stream.receive_some(65_536):
                            await handler(stream, request)

            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(trio.serve_listeners, serve, [listener])
            addresses.append(Address("127.0.0.1", listener.socket.getsockname()[1]))
        yield addresses
        nursery.cancel_scope.cancel()


def answering(status: int, body: bytes, seen: list[bytes]) -> Handler:
    async def handle(stream: trio.SocketStream, request: bytes) -> None:
        seen.append(request)
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode() + body)

    return handle


def hanging_up(seen: list[bytes]) -> Handler:
    async def handle(stream: trio.SocketStream, request: bytes) -> None:
        seen.append(request)
        await stream.aclose()

    return handle


OK = b'{"header":{"revision":"7"}}'
CHANGED = b'{"error":"etcdserver: leader changed","code":14,"message":"etcdserver: leader changed"}'
BUSY = b'{"error":"etcdserver: too many requests","code":8,"message":"etcdserver: too many requests"}'


async def test_a_read_is_asked_of_the_next_member() -> None:
    lost: list[bytes] = []
    changed: list[bytes] = []
    right: list[bytes] = []
    handlers = hanging_up(lost), answering(503, CHANGED, changed), answering(200, OK, right)
    async with members(*handlers) as addresses:
        async with EtcdClient.open(TcpNetwork(), addresses, rng=random.Random(1)) as client:
            assert (await client.range(Range(b"/a"))).revision == 7
            assert (await client.range(Range(b"/a"))).revision == 7
    assert (len(lost), len(changed), len(right)) == (1, 1, 2)


async def test_a_write_that_may_have_happened_is_sent_once() -> None:
    lost: list[bytes] = []
    right: list[bytes] = []
    async with members(hanging_up(lost), answering(200, OK, right)) as addresses:
        async with EtcdClient.open(TcpNetwork(), addresses, rng=random.Random(1)) as client:
            with pytest.raises(ConnectionLost):
                await client.put(b"/a", b"x")
            assert (len(lost), len(right)) == (1, 0)
            await client.put(b"/a", b"x")  # the next one goes elsewhere
            assert (len(lost), len(right)) == (1, 1)


async def test_a_write_that_did_not_happen_is_sent_again() -> None:
    busy: list[bytes] = []
    right: list[bytes] = []
    async with members(answering(429, BUSY, busy), answering(200, OK, right)) as addresses:
        (closed,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        gone = Address("127.0.0.1", closed.socket.getsockname()[1])
        await closed.aclose()
        async with EtcdClient.open(TcpNetwork(), [gone, *addresses], rng=random.Random(1)) as client:
            assert (await client.put(b"/a", b"x")).revision == 7
        assert (len(busy), len(right)) == (1, 1)
        async with EtcdClient.open(TcpNetwork(), [gone], rng=random.Random(1), pinned=True) as client:
            with pytest.raises(Unreachable):
                await client.put(b"/a", b"x")


async def test_a_silent_member_is_turned_from_by_whoever_gives_up() -> None:
    async def silent(stream: trio.SocketStream, request: bytes) -> None:
        await trio.sleep_forever()

    right: list[bytes] = []
    async with members(silent, answering(200, OK, right)) as addresses:
        async with EtcdClient.open(TcpNetwork(), addresses, rng=random.Random(1)) as client:
            with trio.move_on_after(0.05):
                await client.put(b"/a", b"x")
            assert right == []
            assert (await client.put(b"/a", b"x")).revision == 7


async def test_a_client_needs_an_address() -> None:
    with pytest.raises(ConfigError):
        async with EtcdClient.open(TcpNetwork(), [], rng=random.Random(1)):
            pass
