"""Members of two versions in one cluster: what the older one does not know never enters the log."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from chaos.sim.clock import SimClock, run_simulation
from chaos.sim.simulated_store import NAMES, SimulatedStore, settled
from raftkube.errors import Unsupported
from raftkube.rng import seeded_rng
from raftkube.store.client import StoreClient
from raftkube.store.raft.settings import RaftSettings
from raftkube.wire.cluster_version import CLUSTER_VERSION, version_needed
from raftkube.wire.store import (
    Alarm,
    AlarmList,
    Compact,
    Compare,
    DeleteRange,
    LeaseExpire,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseList,
    LeaseRevoke,
    LeaseTimeToLive,
    Once,
    Put,
    Range,
    SessionClose,
    SessionOpen,
    Txn,
    op_to_wire,
)

OLD = "store-3"


async def cluster_versions(client: StoreClient) -> list[int]:
    return [(await client.status(member=name))["cluster_version"] for name in NAMES]


async def until_raised(client: StoreClient) -> None:
    while await cluster_versions(client) != [CLUSTER_VERSION] * 3:
        await trio.sleep(0.05)


async def open_session(client: StoreClient) -> Any:
    return await client._call("op", [op_to_wire(SessionOpen())], write=True)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_mixed_cluster_takes_what_all_know_and_rises_after_the_last_upgrade(seed: int) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            store = SimulatedStore(seed, nursery)
            store.newest_versions[OLD] = 1
            await store.start_all()
            async with store.client("host") as client:
                await client.put(b"k", b"1")
                await trio.sleep(5)
                assert await cluster_versions(client) == [1, 1, 1]
                sentence = f"needs cluster version 2; {OLD} runs 1: upgrade it"
                for name in NAMES:  # whoever leads
                    if name != (await client.status())["leader"]:
                        await client.move_leader(name)
                    with trio.fail_after(5), pytest.raises(Unsupported, match=sentence) as refused:
                        await open_session(client)
                    assert refused.value.fields == {"cluster_version": 1, "needed": 2}
                    with trio.fail_after(5), pytest.raises(Unsupported):
                        await client.put(b"k", b"", ignore_value=True, lease=0)
                revision = (await client.put(b"k", b"2")).revision
                await settled(client)

                await store.stop(OLD)
                store.newest_versions[OLD] = CLUSTER_VERSION
                await trio.sleep(2)
                assert (await client.status(member="store-1"))["cluster_version"] == 1, "one member is away"
                await store.start(OLD)
                with trio.fail_after(10):
                    await until_raised(client)
                    await open_session(client)
                    kept = await client.put(b"k", b"", ignore_value=True)
                assert kept.revision == revision + 1, "what was refused had no effect"
                await settled(client)
            assert not store.failures
            nursery.cancel_scope.cancel()

    run_simulation(seed, main)


def test_a_program_that_is_too_old_stops_and_says_so() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            # Little log, so that the version must come out of snapshots, too.
            small = RaftSettings(snapshot_log_entries=20, retain_entries=5, segment_bytes=64 * 1024)
            store = SimulatedStore(4, nursery, raft=small)
            await store.start_all()
            async with store.client("host") as client:
                await until_raised(client)
                for number in range(60):
                    await client.put(b"k", b"%d" % number)
                await settled(client)
                await store.stop(OLD)
                store.newest_versions[OLD] = 1
                with pytest.raises(RuntimeError, match="child exited"):
                    await store.start(OLD)
                await store.crash("store-1")
                await store.start("store-1")
                assert (await client.status(member="store-1"))["cluster_version"] == CLUSTER_VERSION
                await open_session(client)
            (failure,) = store.failures
            assert failure == (
                f"{OLD}: the cluster's version is 2, and {OLD} runs a program that knows versions up to 1: "
                "upgrade it to what the other members run"
            )
            nursery.cancel_scope.cancel()

    run_simulation(4, main)


def test_a_member_that_was_away_while_the_version_rose_is_told_and_stops() -> None:
    """Its directory, brought back from before, does not say what happened since: the others do."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            store = SimulatedStore(5, nursery)
            store.newest_versions[OLD] = 1
            await store.start_all()
            async with store.client("host") as client:
                await client.put(b"k", b"1")
                await settled(client)
                await store.stop(OLD)
                before = store.disks[OLD].clone(seeded_rng(5))
                store.newest_versions[OLD] = CLUSTER_VERSION
                await store.start(OLD)
                await until_raised(client)
                await store.stop(OLD)
                store.newest_versions[OLD], store.disks[OLD] = 1, before
                await store.start(OLD)
                with trio.fail_after(10):
                    while not store.failures:
                        await trio.sleep(0.05)
                await open_session(client)
            assert "store-3 runs a program that knows versions up to 1: upgrade it" in store.failures[0]
            nursery.cancel_scope.cancel()

    run_simulation(5, main)


def test_a_fresh_cluster_takes_numbered_writes_at_once() -> None:
    """They wait the moment that it takes until all members are heard."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            store = SimulatedStore(6, nursery)
            async with (
                StoreClient.open(
                    store.network.host("host"), list(store.clients.values()), clock=SimClock(),
                    rng=seeded_rng(6), exactly_once=True,
                ) as client
            ):  # fmt: skip
                await store.start("store-1")
                await store.start("store-2")
                with trio.move_on_after(5) as waiting:
                    await client.put(b"k", b"v")
                assert waiting.cancelled_caught, "store-3 was never heard, and may know less"
                await store.start("store-3")
                with trio.fail_after(2):
                    await client.put(b"k", b"v")
            nursery.cancel_scope.cancel()

    run_simulation(6, main)


WRITE = Put(b"k", b"v")
LEVELS = {
    1: [
        WRITE, Put(b"k", b"v", 7, True), DeleteRange(b"a", b"b", True), Range(b"a", b"b", 3, 4, True, True),
        Txn((Compare(b"k", "mod", "=", 3),), (WRITE, LeaseGrant(1, 9)), (Range(b"k"), LeaseKeepAlive(1))),
        Compact(3), LeaseGrant(1, 10), LeaseRevoke(1), LeaseKeepAlive(1), LeaseExpire(1, 2),
        LeaseTimeToLive(1, True), LeaseList(),
    ],
    2: [
        Put(b"k", b"", 0, False, True), Put(b"k", b"", 0, False, False, True),
        Range(b"k", sort_order="descend"), Range(b"k", max_create_revision=9),
        Txn((), (), (WRITE, Range(b"k", sort_target="mod"))), Txn((), (Put(b"k", b"", ignore_value=True),)),
        SessionOpen(), SessionClose(1), Once(1, 1, 1, WRITE), Alarm(False, "NOSPACE"), AlarmList(),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("level", "op"), [(level, op) for level, ops in LEVELS.items() for op in ops])
def test_the_version_that_each_operation_needs(level: int, op: Any) -> None:
    assert version_needed(op_to_wire(op)) == level


def test_no_operation_is_left_out() -> None:
    from raftkube.wire import store as wire

    assert {type(op) for ops in LEVELS.values() for op in ops} == set(wire._OPS.values())
