"""The quota: what would exceed it is refused, the alarm holds until it is disarmed, and the rest goes on."""

from __future__ import annotations

import pytest
import trio
from single_member import client_of, single_member

from raftkube.apiserver.errors import from_store
from raftkube.errors import InvalidRequest, NoSpace
from raftkube.limits import VERSION_OVERHEAD_BYTES
from raftkube.store.client import StoreClient
from raftkube.store.core import StateMachine
from raftkube.store.core.space import NO_SPACE
from raftkube.store.server.settings import ServerSettings
from raftkube.wire.store import Alarm, Compact, DeleteRange, Put, Range, Txn

SMALL = ServerSettings(quota_bytes=20_000, history_s=0, history_revisions_max=0)
VALUE = b"x" * 1_000


async def fill(client: StoreClient) -> int:
    """Put until it is refused; how many were taken."""
    for number in range(100):
        try:
            await client.put(b"k%d" % number, VALUE)
        except NoSpace:
            return number
    raise AssertionError("nothing was refused")


async def test_puts_are_refused_and_the_alarm_is_raised() -> None:
    async with single_member(SMALL) as member, client_of(member) as client:
        taken = await fill(client)
        each = 1_000 + VERSION_OVERHEAD_BYTES
        assert taken in (20_000 // (each + 3), 20_000 // (each + 2))
        assert (await client.alarms()).alarms == (("store-1", "NOSPACE"),)
        status = await client.status()
        assert status["alarms"] == [["store-1", "NOSPACE"]]
        assert status["quota_bytes"] == 20_000
        assert 20_000 - each - 4 < status["db_size_in_use"] <= 20_000
        assert status["db_size"] == status["db_size_in_use"]


async def test_what_makes_room_goes_on_and_so_do_reads() -> None:
    async with single_member(SMALL) as member, client_of(member) as client:
        lease = (await client.lease_grant(30)).lease
        taken = await fill(client)
        for refused in (Txn((), (Put(b"k", b""),)), Txn((), (), (Put(b"k", b""),))):
            with pytest.raises(NoSpace):
                await client.txn(refused)
        with pytest.raises(NoSpace):
            await client.lease_grant(30)
        with pytest.raises(NoSpace):
            await client.put(b"small", b"")
        assert (await client.range(Range(b"k", b"l", count_only=True))).count == taken
        await client.lease_keep_alive(lease)
        await client.lease_revoke(lease)
        await client.txn(Txn((), (Range(b"k0"), DeleteRange(b"k0"))))
        assert (await client.delete(b"k", b"l")).deleted == taken - 1
        await client.compact((await client.status())["revision"])
        assert (await client.status())["db_size_in_use"] == 0
        with pytest.raises(NoSpace):
            await client.put(b"k", b"")  # until it is disarmed
        assert (await client.alarm_disarm()).alarms == (("store-1", "NOSPACE"),)
        assert (await client.alarm_disarm()).alarms == ()
        assert await fill(client) == taken


async def test_disarmed_without_room_it_comes_back() -> None:
    async with single_member(SMALL) as member, client_of(member) as client:
        await fill(client)
        await client.alarm_disarm()
        with pytest.raises(NoSpace):
            await client.put(b"k", VALUE)
        assert (await client.alarms()).alarms == (("store-1", "NOSPACE"),)


async def test_puts_that_arrive_together_count_together() -> None:
    async with single_member(SMALL) as member, client_of(member) as client:
        refused = 0

        async def put(number: int) -> None:
            nonlocal refused
            try:
                await client.put(b"k%d" % number, VALUE)
            except NoSpace:
                refused += 1

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(put, number)
        assert refused >= 60 - 16
        assert (await client.status())["db_size_in_use"] <= 20_000


async def test_only_the_store_raises_alarms() -> None:
    async with single_member() as member, client_of(member) as client:
        with pytest.raises(InvalidRequest):
            await client._op(Alarm(True, "NOSPACE", "store-1"), object)
        with pytest.raises(InvalidRequest):
            await client.alarm_disarm("CORRUPT")


async def test_without_a_quota_nothing_is_refused() -> None:
    async with single_member(ServerSettings(quota_bytes=0)) as member, client_of(member) as client:
        for number in range(50):
            await client.put(b"k%d" % number, VALUE)
        assert (await client.status())["quota_bytes"] == 0


def test_what_was_under_way_when_the_alarm_was_raised_is_refused_alike_everywhere() -> None:
    machine = StateMachine()
    machine.apply(Put(b"k", b"v"))
    machine.apply(Alarm(True, "NOSPACE", "store-1"))
    for refused in (machine.apply(Put(b"k", b"w")), machine.put(b"k", b"w", 0, False)):
        assert isinstance(refused, NoSpace)
    assert machine.revision == 2
    restored = StateMachine.restore(machine.snapshot())
    assert restored.alarms == (("store-1", "NOSPACE"),)
    assert restored.state_hash() == machine.state_hash()


def test_the_size_is_of_what_can_be_read() -> None:
    machine = StateMachine()
    for number in range(30):
        machine.apply(Put(b"k", b"%04d" % number))
    each = 5 + VERSION_OVERHEAD_BYTES
    assert machine.db_size_in_use == 30 * each
    machine.apply(Compact(29))
    assert machine.db_size_in_use == 3 * each
    assert machine.db_size > machine.db_size_in_use, "the rest waits to be trimmed"
    assert machine.trim(100)
    assert machine.db_size == machine.db_size_in_use
    machine.apply(DeleteRange(b"k"))
    assert machine.db_size_in_use == 4 * each - 4
    machine.apply(Compact(machine.revision))
    assert machine.db_size_in_use == 0


def test_the_api_says_that_the_store_is_full() -> None:
    error = from_store(NoSpace(NO_SPACE))
    assert error.code == 507
    assert error.reason == "InsufficientStorage"
    assert "raftkube kv alarm disarm" in error.message
    assert NoSpace.definite


async def test_a_hash_stops_nobody() -> None:
    async with single_member() as member, client_of(member) as client:
        for number in range(3_000):
            member.machine.core.put(b"k%d" % number, VALUE, 0, False)
        expected = f"{member.machine.core.state_hash():016x}"
        told: dict[str, object] = {}

        async def ask() -> None:
            told.update(await client.hash())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not member.machine.core._pins:
                await trio.lowlevel.checkpoint()
            await client.put(b"meanwhile", b"")  # answered while it is computed, and not in it
            assert not told
        assert told["hash"] == expected
        assert told["revision"] == member.machine.core.revision - 1
