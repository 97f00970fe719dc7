"""Client and server over real sockets; consensus is immediate (single_member)."""

from __future__ import annotations

import pytest
import trio
from single_member import client_of, single_member

from raftkube.clock import SystemClock
from raftkube.errors import (
    Compacted,
    ConnectionLost,
    DeadlineExpired,
    FutureRevision,
    Indefinite,
    InvalidRequest,
    LeaseNotFound,
    NoLeader,
    NotLeader,
    RequestTooLarge,
)
from raftkube.limits import FRAME_BYTES_MAX
from raftkube.store.client import StoreClient, WatchBatch
from raftkube.store.server.settings import ServerSettings
from raftkube.wire import rpc
from raftkube.wire.frames import frame
from raftkube.wire.store import DELETE_EVENT, PUT_EVENT, Compare, Put, Range, Txn


async def collect(watch: object, count: int) -> list[tuple[int, bytes, bytes]]:
    """(type, key, value) of the next `count` events."""
    events: list[tuple[int, bytes, bytes]] = []
    with trio.fail_after(10):
        while len(events) < count:
            batch = await watch.__anext__()  # type: ignore[attr-defined]
            events += [(event.type, event.kv.key, event.kv.value) for event in batch.events]
    return events


async def test_put_get_delete_txn_compact() -> None:
    async with single_member() as member, client_of(member) as client:
        assert (await client.put(b"a", b"1")).revision == 2
        kv = await client.get(b"a")
        assert kv is not None
        assert (kv.value, kv.create_revision, kv.mod_revision, kv.version) == (b"1", 2, 2, 1)
        replaced = await client.put(b"a", b"2", prev_kv=True)
        assert replaced.prev_kv is not None
        assert replaced.prev_kv.value == b"1"
        won = await client.txn(
            Txn((Compare(b"a", "value", "=", b"2"),), (Put(b"b", b"x"), Range(b"a")), (Put(b"c", b"y"),))
        )
        assert won.succeeded
        assert won.responses[1].kvs[0].value == b"2"
        assert (await client.range(Range(b"a", b"z"))).count == 2
        assert (await client.range(Range(b"a", revision=2))).kvs[0].value == b"1"
        assert (await client.delete(b"a")).deleted == 1
        assert await client.get(b"a") is None
        await client.compact(4)
        with pytest.raises(Compacted) as compacted:
            await client.range(Range(b"a", revision=2))
        assert compacted.value.fields["compact_revision"] == 4
        with pytest.raises(FutureRevision):
            await client.range(Range(b"a", revision=99))


async def test_invalid_requests_are_definite_and_name_the_field() -> None:
    async with single_member() as member, client_of(member) as client:
        with pytest.raises(InvalidRequest, match="key is empty"):
            await client.put(b"", b"")
        with pytest.raises(RequestTooLarge):
            await client.put(b"k", bytes(2_000_000))
        with pytest.raises(LeaseNotFound):
            await client.put(b"k", b"", lease=7)
        assert (await client.status())["revision"] == 1


async def test_what_does_not_fit_the_wire_is_refused_by_the_client_and_harms_nobody() -> None:
    async with single_member() as member, client_of(member) as client:
        for beyond in (2**64, -(2**63) - 1):
            with pytest.raises(InvalidRequest, match="cannot be sent"):
                await client.compact(beyond)
        with pytest.raises(InvalidRequest, match="cannot be sent"):
            await client.put(b"k", "no bytes \ud800")  # type: ignore[arg-type]
        await client.put(b"k", b"v")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:\u00b2", "127.0.0.1:" + "1" * 5000, "a..b:1", "a" * 70 + ":1", "a\0b:1", "\u00fc:1", "a b:1"],
)
async def test_no_address_that_nobody_can_dial_reaches_the_log(address: str) -> None:
    """It would stand in the configuration for good, and every leader would dial it."""
    async with single_member() as member, client_of(member, pinned=True) as client:
        with pytest.raises(InvalidRequest, match="is not an address"):
            await client.member_add("s4", address)
        with pytest.raises(InvalidRequest, match="is not an address"):
            await client.member_update("store-1", None, address)
        await client.put(b"k", b"v")


async def test_many_requests_in_flight_on_one_connection() -> None:
    async with single_member() as member, client_of(member) as client:
        revisions = []

        async def put(number: int) -> None:
            revisions.append((await client.put(b"k%d" % number, b"v")).revision)

        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(put, number)
        assert sorted(revisions) == list(range(2, 502))


async def test_a_long_answer_comes_in_parts() -> None:
    async with single_member() as member, client_of(member) as client:
        value = bytes(1_000_000)
        for number in range(20):
            await client.put(b"big/%02d" % number, value)
        result = await client.range(Range(b"big/", b"big0"))
        assert sum(len(kv.value) for kv in result.kvs) == 20_000_000 > FRAME_BYTES_MAX
        assert [kv.key for kv in result.kvs] == [b"big/%02d" % number for number in range(20)]


async def test_leases_are_granted_kept_alive_and_revoked() -> None:
    async with single_member() as member, client_of(member) as client:
        lease = (await client.lease_grant(60)).lease
        assert lease > 0
        await client.put(b"held", b"", lease=lease)
        left = await client.lease_time_to_live(lease, keys=True)
        assert left.keys == (b"held",)
        assert 0 < left.remaining_s <= 60
        assert (await client.lease_keep_alive(lease)).renewal == 1
        assert (await client.leases()).leases == (lease,)
        await client.lease_revoke(lease)
        assert await client.get(b"held") is None
        with pytest.raises(LeaseNotFound):
            await client.lease_keep_alive(lease)


async def test_a_lease_that_nobody_renews_expires_and_a_watch_sees_it() -> None:
    async with single_member() as member, client_of(member) as client:
        lease = (await client.lease_grant(1)).lease
        await client.put(b"held", b"x", lease=lease)
        async with client.watch(b"held") as watch:
            assert await collect(watch, 1) == [(DELETE_EVENT, b"held", b"")]
        assert (await client.leases()).leases == ()


async def test_watch_live_from_the_past_and_with_prev_kv() -> None:
    async with single_member() as member, client_of(member) as client:
        await client.put(b"p/a", b"1")
        await client.put(b"q", b"other")
        async with client.watch(b"p/", b"p0", start_revision=2, prev_kv=True) as watch:
            assert await watch.__anext__() == WatchBatch(2, (await watch_event(client, b"p/a"),))
            await client.put(b"p/a", b"2")
            batch = await watch.__anext__()
            assert batch.events[0].prev_kv is not None
            assert batch.events[0].prev_kv.value == b"1"
            await client.delete(b"p/", b"p0")
            assert await collect(watch, 1) == [(DELETE_EVENT, b"p/a", b"")]


async def watch_event(client: StoreClient, key: bytes) -> object:
    from raftkube.wire.store import Event

    kv = await client.get(key)
    assert kv is not None
    return Event(PUT_EVENT, kv, None)


async def test_watches_of_one_connection_share_and_filters_hold() -> None:
    async with single_member() as member, client_of(member) as client:
        async with (
            client.watch(b"a", b"b") as first,
            client.watch(b"a", b"b") as second,
            client.watch(b"a", b"b", no_put=True) as deletes,
        ):
            await client.put(b"a1", b"x")
            await client.delete(b"a1")
            both = [(PUT_EVENT, b"a1", b"x"), (DELETE_EVENT, b"a1", b"")]
            assert await collect(first, 2) == both
            assert await collect(second, 2) == both
            assert await collect(deletes, 1) == both[1:]


async def test_a_future_start_waits_and_sees_nothing_earlier() -> None:
    async with single_member() as member, client_of(member) as client:
        async with client.watch(b"k", start_revision=4) as watch:
            for value in (b"2", b"3", b"4"):
                await client.put(b"k", value)
            assert await collect(watch, 1) == [(PUT_EVENT, b"k", b"4")]


async def test_a_compacted_start_is_refused() -> None:
    async with single_member() as member, client_of(member) as client:
        for _ in range(5):
            await client.put(b"k", b"v")
        await client.compact(5)
        with pytest.raises(Compacted):
            async with client.watch(b"k", start_revision=2):
                pass
        async with client.watch(b"k", start_revision=5) as watch:
            assert len(await collect(watch, 2)) == 2


async def test_a_requested_mark_follows_every_event_and_sees_an_idle_prefix() -> None:
    async with single_member() as member, client_of(member) as client:
        async with client.watch(b"idle/", b"idle0") as idle, client.watch(b"busy") as busy:
            newest = (await client.put(b"busy", b"x")).revision
            asked = await idle.request_progress()
            assert asked >= newest
            assert await idle.__anext__() == WatchBatch(asked, ())
            asked = await busy.request_progress()
            batch = await busy.__anext__()
            assert [event.kv.value for event in batch.events] == [b"x"]
            assert await busy.__anext__() == WatchBatch(asked, ())


async def test_progress_marks_come_unasked_where_wanted() -> None:
    settings = ServerSettings(progress_interval_s=0.02)
    async with single_member(settings) as member, client_of(member) as client:
        async with client.watch(b"idle", progress_notify=True) as watch:
            newest = (await client.put(b"other", b"x")).revision
            with trio.fail_after(10):
                async for batch in watch:
                    assert batch.events == ()
                    if batch.revision >= newest:
                        break


async def test_deletes_of_one_revision_come_together() -> None:
    async with single_member() as member, client_of(member) as client:
        for number in range(300):
            await client.put(b"d/%03d" % number, bytes(50_000))
        async with client.watch(b"d/", b"d0", prev_kv=True) as watch:
            await client.delete(b"d/", b"d0")
            batch = await watch.__anext__()  # 15 MB with what was deleted: it crosses in fragments
            assert len(batch.events) == 300
            assert {event.kv.mod_revision for event in batch.events} == {batch.revision}


async def test_a_reader_that_stops_reading_loses_nothing() -> None:
    async with single_member() as member, client_of(member) as client:
        async with client.watch(b"k") as watch:
            value = bytes(500_000)
            for number in range(80):  # 40 MB: more than the client holds unread
                await client.put(b"k", value + b"%d" % number)
            seen = await collect(watch, 80)
        assert [value[500_000:] for _, _, value in seen] == [b"%d" % number for number in range(80)]


async def test_an_expired_request_is_not_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The member was stopped between reading the request and looking at its deadline."""
    async with single_member() as member, client_of(member) as client:
        await client.put(b"k", b"v")
        looks = iter(range(0, 10**9, 60))
        monkeypatch.setattr(SystemClock, "monotonic", lambda self: float(next(looks)))
        with pytest.raises(DeadlineExpired) as expired:
            with trio.fail_after(30):
                await client.put(b"k", b"late")
        assert expired.value.definite
        assert len(member.consensus.proposed) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        frame(["raftkube-store", 99, "x"]),
        frame({"a": 1}),
        rpc.client_hello("x") + frame([1, 2, 3]),
        rpc.client_hello("x") + b"\x00\x00\x00\x01\xc1",
    ],
    ids=["http", "length", "version", "no-hello", "no-request", "no-msgpack"],
)
async def test_a_bad_frame_closes_only_its_connection(data: bytes) -> None:
    async with single_member() as member, client_of(member) as client:
        await client.put(b"k", b"v")
        bad = await member.network.connect(member.address, None)
        await bad.send_all(data)
        with trio.fail_after(10):
            while await bad.receive_some():
                pass
        assert await client.get(b"k") is not None


async def test_an_answer_that_cannot_be_made_ends_neither_member_nor_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Too large for the memory that is left, say: reads are answered by a task of the member's own."""

    def no_memory(request_id: int, result: object) -> bytes:
        raise MemoryError

    async with single_member() as member, client_of(member, pinned=True) as client:
        await client.put(b"k", b"v")
        with monkeypatch.context() as patch:
            patch.setattr(rpc, "answer", no_memory)
            patch.setattr(rpc, "put_answer", no_memory)
            with trio.fail_after(60):  # two tracebacks are written as well
                with pytest.raises(Indefinite):
                    await client.get(b"k")
                with pytest.raises(Indefinite):
                    await client.put(b"k", b"w")
        found = await client.get(b"k")
        assert found is not None
        assert found.value == b"w"


async def test_unknown_methods_and_malformed_operations_are_answered() -> None:
    async with single_member() as member, client_of(member) as client:
        for method, arguments in [("nope", []), (rpc.OP, [[99]]), (rpc.OP, []), (rpc.WATCH_CREATE, [1])]:
            with pytest.raises(InvalidRequest):
                await client._call(method, arguments, write=True)
        with pytest.raises(InvalidRequest, match="proposed by the store itself"):
            await client._call(rpc.OP, [[9, 1, 0]], write=True)


async def test_a_pinned_client_is_told_who_leads_and_retries_nothing() -> None:
    async with single_member() as member, client_of(member, pinned=True) as client:
        member.consensus.leader = "store-2"
        with pytest.raises(NotLeader) as refusal:
            await client.put(b"k", b"v")
        assert refusal.value.fields["leader"] == "store-2"
        member.consensus.refuse_with = NoLeader("none")
        with pytest.raises(NoLeader):
            await client.put(b"k", b"v")


async def test_a_client_waits_for_a_leader_until_its_deadline() -> None:
    async with single_member() as member, client_of(member) as client:
        member.consensus.refuse_with = NoLeader("none yet")
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(0.2):
                await client.put(b"k", b"v")

        async def elect() -> None:
            await trio.sleep(0.05)
            member.consensus.refuse_with = None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(elect)
            with trio.fail_after(10):
                assert (await client.put(b"k", b"v")).revision == 2


async def test_a_call_in_a_scope_that_was_cancelled_is_cancelled() -> None:
    async with single_member() as member, client_of(member) as client:
        await client.get(b"k")
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.put(b"k", b"v")
        assert scope.cancelled_caught


async def test_a_write_whose_connection_breaks_is_indefinite() -> None:
    async with single_member() as member, client_of(member) as client:
        await client.get(b"k")
        member.consensus.gate = trio.Event()
        async with trio.open_nursery() as nursery:

            async def put() -> None:
                with pytest.raises(ConnectionLost) as lost:
                    await client.put(b"k", b"v")
                assert not lost.value.definite

            nursery.start_soon(put)
            await trio.testing.wait_all_tasks_blocked(0.01)
            client._close()


async def test_errors_leave_the_client_unwrapped() -> None:
    async with single_member() as member:
        with pytest.raises(ValueError, match="mine"):
            async with client_of(member):
                raise ValueError("mine")
