"""Three real members: what a client sees while they lead, die, and come back."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from three_members import NAMES, leader_of, three_members

from raftkube.errors import Indefinite, NotLeader, Unreachable
from raftkube.store.client import StoreClient
from raftkube.wire.store import DELETE_EVENT, Compare, Put, Range, Txn


async def test_writes_reads_and_equal_states(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with three_members(tmp_path) as members, members.open_client() as client:
            for number in range(50):
                await client.put(b"k%d" % number, b"%d" % number)
            result = await client.txn(
                Txn((Compare(b"k1", "version", "=", 1),), (Put(b"k1", b"new"), Range(b"k1")))
            )
            assert result.succeeded
            for name in NAMES:  # a linearizable read on every member sees it
                seen = await client.range(Range(b"k1"), member=name)
                assert seen.kvs[0].value == b"new"
            hashes = {(await client.hash(member=name))["hash"] for name in NAMES}
            assert len(hashes) == 1


async def test_a_follower_says_who_leads(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with three_members(tmp_path) as members, members.open_client() as client:
            await client.put(b"k", b"v")
            leader = await leader_of(client)
            follower = next(name for name in NAMES if name != leader)
            async with StoreClient.open(members.network, [members.clients[follower]], pinned=True) as pinned:
                with pytest.raises(NotLeader) as refusal:
                    await pinned.put(b"k", b"v")
            assert refusal.value.fields["leader"] == leader


async def test_the_leader_dies_and_the_client_goes_on(tmp_path: Path) -> None:
    """Acknowledged writes survive, the watch has neither gap nor duplicate, the dead one catches up."""
    with trio.fail_after(60):
        async with three_members(tmp_path) as members, members.open_client() as client:
            acknowledged = [(await client.put(b"w/start", b"")).revision]
            async with client.watch(b"w/", b"w0", start_revision=acknowledged[0]) as watch:
                leader = await leader_of(client)
                for number in range(200):
                    if number == 100:
                        await members.kill(leader)
                    try:
                        acknowledged.append((await client.put(b"w/%d" % number, b"")).revision)
                    except Indefinite:
                        continue
                seen: list[int] = []
                newest = acknowledged[-1]
                while not seen or seen[-1] < newest:
                    seen += [event.kv.mod_revision for event in (await watch.__anext__()).events]
            assert seen == sorted(set(seen))
            assert set(acknowledged) <= set(seen)
            assert await leader_of(client) != leader
            await members.start(leader)
            stale = await client.range(Range(b"w/", b"w0"), member=leader)
            assert stale.revision >= newest
            assert len({(await client.hash(member=name))["hash"] for name in NAMES}) == 1


async def test_all_die_at_once_and_nothing_acknowledged_is_missing(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with three_members(tmp_path) as members, members.open_client() as client:
            written = {b"k%d" % number: b"%d" % number for number in range(300)}
            async with trio.open_nursery() as nursery:
                for key, value in written.items():
                    nursery.start_soon(client.put, key, value)
            async with trio.open_nursery() as nursery:
                for name in NAMES:
                    nursery.start_soon(members.kill, name)
            with pytest.raises((Unreachable, Indefinite)):
                await client.status(member=members.clients["store-1"])
            await members.start_all()
            found = await client.range(Range(b"k", b"l"))
            assert {kv.key: kv.value for kv in found.kvs} == written


async def test_a_lease_outlives_its_leader_and_then_expires(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with three_members(tmp_path) as members, members.open_client() as client:
            lease = (await client.lease_grant(2)).lease
            await client.put(b"held", b"", lease=lease)
            async with client.watch(b"held") as watch:
                leader = await leader_of(client)
                await members.kill(leader)
                assert await renew(client, lease) >= 1
                left = await client.lease_time_to_live(lease)
                assert 0 < left.remaining_s <= 2
                batch = await watch.__anext__()
                while not batch.events:
                    batch = await watch.__anext__()
                assert batch.events[0].type == DELETE_EVENT


async def renew(client: StoreClient, lease: int) -> int:
    """A renewal that was cut off may have happened: renew again."""
    while True:
        try:
            return (await client.lease_keep_alive(lease)).renewal
        except Indefinite:
            continue


async def test_a_mark_asked_of_a_follower_is_as_fresh_as_the_leader(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with three_members(tmp_path) as members, members.open_client() as client:
            await client.put(b"k", b"0")
            leader = await leader_of(client)
            follower = next(name for name in NAMES if name != leader)
            async with StoreClient.open(members.network, [members.clients[follower]]) as other:
                async with other.watch(b"k") as watch:
                    newest = (await client.put(b"k", b"1")).revision
                    asked = await watch.request_progress()
                    assert asked >= newest
                    values = []
                    async for batch in watch:
                        values += [event.kv.value for event in batch.events]
                        if batch.revision >= asked:
                            break
                    assert values == [b"1"]
