"""The whole store under faults in virtual time: what is promised to clients holds, seed after seed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from chaos.sim.clock import run_simulation
from chaos.sim.simulated_store import NAMES, SimulatedStore, settled
from raftkube.errors import Indefinite, LeaseNotFound, StoreError
from raftkube.store.client import StoreClient
from raftkube.wire.store import Range


@dataclass
class History:
    acknowledged: dict[int, bytes] = field(default_factory=dict)  # revision: key
    attempted: set[bytes] = field(default_factory=set)
    watched: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    done: bool = False


async def write(store: SimulatedStore, host: str, history: History) -> None:
    number = 0
    async with store.client(host) as client:
        while not history.done:
            key = f"k/{host}/{number}".encode()
            number += 1
            history.attempted.add(key)
            try:
                with trio.move_on_after(3):
                    history.acknowledged[(await client.put(key, b"v")).revision] = key
            except Indefinite:
                pass
            await trio.sleep(store.rng.uniform(0, 0.02))


async def watch(store: SimulatedStore, host: str, history: History) -> None:
    seen = history.watched[host] = []
    async with store.client(host) as client, client.watch(b"k/", b"k0", start_revision=1) as watching:
        async for batch in watching:
            seen += [(event.kv.mod_revision, event.kv.key) for event in batch.events]


async def break_things(store: SimulatedStore, seconds: float) -> None:
    """A fault, a pause, and everything whole again, for so long."""
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        victim = store.rng.choice(NAMES)
        match store.rng.randrange(4):
            case 0:
                await store.crash(victim)
            case 1:
                store.network.partition({victim}, set(NAMES) - {victim})
            case 2:
                store.network.partition({victim, "watcher-2"}, {*NAMES, "writer-1", "watcher-1"} - {victim})
            case _:
                store.network.cut(victim, store.rng.choice(NAMES))
        await trio.sleep(store.rng.uniform(0.2, 3))
        store.network.heal()
        await store.start_all()
        await trio.sleep(store.rng.uniform(0, 2))


async def live_through(seed: int, seconds: float) -> str:
    """Run writers and watchers through faults, judge, and return the trace's hash."""
    history = History()
    async with trio.open_nursery() as nursery:
        store = SimulatedStore(seed, nursery)
        await store.start_all()
        for number in range(2):
            nursery.start_soon(watch, store, f"watcher-{number}", history)
        async with trio.open_nursery() as writers:
            for number in range(3):
                writers.start_soon(write, store, f"writer-{number}", history)
            await break_things(store, seconds)
            history.done = True
        with trio.fail_after(120):
            async with store.client("judge") as client:
                await judge(store, client, history)
        nursery.cancel_scope.cancel()
    return f"{store.network.trace_hash} {len(history.acknowledged)}"


async def judge(store: SimulatedStore, client: StoreClient, history: History) -> None:
    await client.put(b"barrier", b"")
    await settled(client)
    assert store.failures == []
    found = {kv.mod_revision: kv.key for kv in (await client.range(Range(b"k/", b"k0"))).kvs}
    assert history.acknowledged.items() <= found.items(), "an acknowledged write is missing"
    assert set(found.values()) <= history.attempted
    for host, seen in history.watched.items():
        while len(seen) < len(found):  # noqa: ASYNC110
            await trio.sleep(0.1)
        assert seen == sorted(found.items()), f"{host} saw a gap, a duplicate or a wrong order"
    assert len(history.acknowledged) > 50


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 30))]
)
def test_nothing_acknowledged_is_lost_and_watches_have_no_gap(seed: int) -> None:
    run_simulation(seed, live_through, seed, 15.0)


def test_one_seed_one_trace() -> None:
    """In processes of their own, with different hash seeds."""
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}]\n"
        "from test_store_simulated import live_through, run_simulation\n"
        "print(run_simulation(7, live_through, 7, 5.0))"
    )
    traces = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout.splitlines()[-1]
        for hash_seed in ("1", "2")
    ]
    assert traces[0] == traces[1]


async def lose_the_leaseholder(seed: int) -> None:
    """Kept alive through leader changes it lives; left alone it ends, and not before its TTL."""
    async with trio.open_nursery() as nursery:
        store = SimulatedStore(seed, nursery)
        await store.start_all()
        async with store.client("holder") as client:
            kept, left = (await client.lease_grant(6)).lease, (await client.lease_grant(6)).lease
            await client.put(b"left", b"", lease=left)
            granted = trio.current_time()
            for turn in range(12):
                if turn % 4 == 1:
                    leader = (await client.status())["leader"]
                    await store.crash(leader)
                await client.lease_keep_alive(kept)
                await store.start_all()
                await trio.sleep(1.5)
                if await client.get(b"left") is None:
                    assert trio.current_time() - granted >= 6
            assert await client.get(b"left") is None
            with pytest.raises(LeaseNotFound):
                await client.lease_keep_alive(left)
            assert (await client.leases()).leases == (kept,)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(3))
def test_leases_through_leader_changes(seed: int) -> None:
    run_simulation(seed, lose_the_leaseholder, seed)


async def silence(seed: int) -> float:
    """Cut the client off from the leader, one way, with a write in flight; how long until it knows."""
    async with trio.open_nursery() as nursery:
        store = SimulatedStore(seed, nursery)
        await store.start_all()
        async with store.client("client") as client:
            await client.put(b"k", b"v")
            leader = (await client.status())["leader"]
            store.network.cut(leader, "client")
            start = trio.current_time()
            with pytest.raises(StoreError) as lost:
                await client.put(b"k", b"w")
            assert not lost.value.definite
            took_s = trio.current_time() - start
            store.network.heal()
            assert (await client.get(b"k")).value in (b"v", b"w")  # type: ignore[union-attr]
        nursery.cancel_scope.cancel()
    return took_s


def test_a_silent_member_is_given_up_and_the_write_is_indefinite() -> None:
    assert run_simulation(1, silence, 1) <= 6


async def fall_back(seed: int) -> None:
    """Reads and watches go on at the other members while one is silent."""
    async with trio.open_nursery() as nursery:
        store = SimulatedStore(seed, nursery)
        await store.start_all()
        async with store.client("client") as client, store.client("writer") as writer:
            await writer.put(b"k", b"1")
            async with client.watch(b"k") as watching:
                fed_by = watching.member
                store.network.partition({fed_by}, {*NAMES, "client", "writer"} - {fed_by})
                with trio.fail_after(20):
                    await writer_put(writer, b"2")
                    kv = await client.get(b"k")
                    assert kv is not None
                    assert kv.value == b"2"
                    values = []
                    async for batch in watching:
                        values += [event.kv.value for event in batch.events]
                        if b"2" in values:
                            break
                assert values == [b"2"]
                assert watching.member != fed_by
        nursery.cancel_scope.cancel()


async def writer_put(client: StoreClient, value: bytes) -> None:
    while True:
        try:
            await client.put(b"k", value)
            return
        except Indefinite:
            kv = await client.get(b"k")
            if kv is not None and kv.value == value:
                return


@pytest.mark.parametrize("seed", range(3))
def test_a_partitioned_member_is_left_for_another(seed: int) -> None:
    run_simulation(seed, fall_back, seed)
