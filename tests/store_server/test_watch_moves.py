"""A watch that asked for progress marks does not stay with a member that hears no leader."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from chaos.sim.clock import run_simulation
from chaos.sim.simulated_store import SimulatedStore
from raftkube.errors import WatchEnded
from raftkube.store.client import StoreClient


def with_a_partitioned_follower(
    scenario: Callable[[StoreClient, StoreClient, SimulatedStore], Awaitable[None]],
) -> None:
    """`scenario` gets a client that is attached to store-1, a follower, and another one; it may call
    `cut(store)`, after which store-1 hears clients but no member."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            store = SimulatedStore(1, nursery)
            await store.start_all()
            async with store.client("watcher") as watcher, store.client("writer") as writer:
                await writer.put(b"k", b"0")
                await writer.move_leader("store-2")
                with trio.fail_after(120):  # virtual
                    await scenario(watcher, writer, store)
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


def cut(store: SimulatedStore) -> None:
    store.network.partition({"store-1"}, {"store-2", "store-3"})


def test_the_watch_goes_on_at_a_member_that_hears_the_leader() -> None:
    async def scenario(watcher: StoreClient, writer: StoreClient, store: SimulatedStore) -> None:
        async with watcher.watch(b"k", progress_notify=True) as watch:
            assert watch.member == "store-1"
            cut(store)
            began = trio.current_time()
            written = (await writer.put(b"k", b"1")).revision
            batch = await watch.__anext__()
            while not batch.events:
                assert batch.revision < written
                batch = await watch.__anext__()
            assert [event.kv.mod_revision for event in batch.events] == [written]
            assert watch.member != "store-1"
            assert trio.current_time() - began < 15
            store.network.heal()

    with_a_partitioned_follower(scenario)


def test_without_resumption_it_ends_and_says_after_what() -> None:
    async def scenario(watcher: StoreClient, writer: StoreClient, store: SimulatedStore) -> None:
        async with watcher.watch(b"k", progress_notify=True, resume=False) as watch:
            seen = (await writer.put(b"k", b"1")).revision
            assert (await watch.__anext__()).revision == seen
            cut(store)
            await writer.put(b"k", b"2")
            with pytest.raises(WatchEnded, match="hears no leader") as ended:
                while (await watch.__anext__()).revision <= seen:
                    pass
            assert ended.value.fields == {"revision": seen, "reason": "no-leader"}
            store.network.heal()

    with_a_partitioned_follower(scenario)


def test_a_mark_that_is_asked_for_comes_from_another_member() -> None:
    async def scenario(watcher: StoreClient, writer: StoreClient, store: SimulatedStore) -> None:
        async with watcher.watch(b"k") as watch:
            assert watch.member == "store-1"
            cut(store)
            written = (await writer.put(b"k", b"1")).revision
            with trio.fail_after(15):
                assert await watch.request_progress() >= written
            assert watch.member != "store-1"
            store.network.heal()

    with_a_partitioned_follower(scenario)


def test_marks_go_on_while_there_is_a_leader() -> None:
    async def scenario(watcher: StoreClient, writer: StoreClient, store: SimulatedStore) -> None:
        async with watcher.watch(b"k", progress_notify=True) as watch:
            newest = (await writer.put(b"elsewhere", b"")).revision
            for _ in range(4):
                batch = await watch.__anext__()
                assert batch == (newest, ())
            assert watch.member == "store-1"

    with_a_partitioned_follower(scenario)
