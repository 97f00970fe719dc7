"""Watchers that catch up together: their history is encoded once, and nobody else waits for all of them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from test_watch_hub import EVERYTHING, FakeSink, World, in_world

from raftkube.store.server import past
from raftkube.store.server.past import Past
from raftkube.store.server.watch_log import EncodedEvent, Selector
from raftkube.wire.store import Compact, Put

WATCHERS = 50
HISTORY = 40


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "_EVENTS_PER_SLICE", 10)


def write(world: World, count: int = HISTORY) -> None:
    for number in range(count):
        world.apply(Put(b"k%d" % number, b"v"))


async def caught_up(world: World, count: int = WATCHERS) -> list[FakeSink]:
    """So many watchers of everything, each on a connection of its own, once they have it."""
    sinks = [FakeSink(world.hub) for _ in range(count)]
    watchers = [world.watch(sink, EVERYTHING, start=2) for sink in sinks]
    await trio.testing.wait_all_tasks_blocked()
    for watcher, sink in zip(watchers, sinks, strict=True):
        told = [event for _, events in sink.deliveries(watcher.request.watch_id) for event in events]
        assert [revision for _, _, revision in told] == list(range(2, world.hub.revision + 1))
        assert watcher.subscription is not None
    return sinks


async def test_what_many_catch_up_with_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    original = EncodedEvent.encoding

    def encoding(self: EncodedEvent, prev_kv: bool) -> bytes:
        encoded.append(self.event.kv.mod_revision)
        return original(self, prev_kv)

    monkeypatch.setattr(EncodedEvent, "encoding", encoding)

    async def body(world: World) -> None:
        write(world)
        await caught_up(world)
        assert sorted(encoded) == list(range(2, HISTORY + 2))

    await in_world(body)


async def test_others_go_on_between_the_slices() -> None:
    """Fifty that catch up take one slice each time round; a task that is always ready counts the turns."""
    sends_in_a_turn: list[int] = []

    async def body(world: World) -> None:
        write(world)
        sinks = [FakeSink(world.hub) for _ in range(WATCHERS)]
        for sink in sinks:
            world.watch(sink, EVERYTHING, start=2)
        before = 0
        for _ in range(3 * WATCHERS * HISTORY // 10):
            await trio.lowlevel.checkpoint()
            sent = sum(sink.sends for sink in sinks)
            sends_in_a_turn.append(sent - before)
            before = sent
        assert before == WATCHERS * HISTORY // 10

    await in_world(body)
    assert max(sends_in_a_turn) <= 2  # one, and the one that begins in the same turn


async def test_a_slice_that_held_nothing_yet_is_read_again() -> None:
    async def body(world: World) -> None:
        write(world)
        with world.hub.past.reading():
            await caught_up(world, 1)
            now = world.hub.revision
            assert world.hub.past.slice(world.machine.core, EVERYTHING, now).through == now
            write(world)
            assert world.hub.past.slice(world.machine.core, EVERYTHING, now).event_count > 0
            await caught_up(world, 1)

    await in_world(body)


async def test_nothing_is_kept_once_nobody_catches_up_or_the_state_was_replaced() -> None:
    async def body(world: World) -> None:
        write(world)
        kept = world.hub.past
        await caught_up(world)
        assert (kept._slices, kept._kept_bytes) == ({}, 0)
        with kept.reading():
            await caught_up(world, 1)
            assert kept._kept_bytes > 0
            world.hub.reset(world.hub.revision)
            assert (kept._slices, kept._kept_bytes) == ({}, 0)

    await in_world(body)


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "_KEPT_BYTES_MAX", 1_000)

    async def body(world: World) -> None:
        write(world)
        kept: Past = world.hub.past
        with kept.reading():
            for after in range(1, 30):
                kept.slice(world.machine.core, EVERYTHING, after)
            assert 0 < kept._kept_bytes <= 1_000
            assert sum(made.size_bytes for made in kept._slices.values()) == kept._kept_bytes

    await in_world(body)


async def test_those_that_want_something_else_get_it() -> None:
    async def body(world: World) -> None:
        write(world)
        one = Selector(b"k7", b"")
        sinks = [FakeSink(world.hub) for _ in range(2)]
        wide, narrow = world.watch(sinks[0], EVERYTHING, start=2), world.watch(sinks[1], one, start=2)
        await trio.testing.wait_all_tasks_blocked()
        assert sum(len(events) for _, events in sinks[0].deliveries(wide.request.watch_id)) == HISTORY
        (delivery,) = sinks[1].deliveries(narrow.request.watch_id)
        assert delivery[1] == [(0, b"k7", 9)]

    await in_world(body)


async def test_history_that_is_gone_is_refused_though_others_read_it() -> None:
    async def body(world: World) -> Any:
        write(world)
        with world.hub.past.reading():
            world.apply(Compact(20))
            sink = FakeSink(world.hub)
            world.watch(sink, EVERYTHING, start=2)
            await trio.testing.wait_all_tasks_blocked()
            assert len(world.lost) == 1

    await in_world(body)
