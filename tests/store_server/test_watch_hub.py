"""The hub without sockets: sinks that fill up, watchers that come and go, histories that are compacted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkube.errors import Compacted
from raftkube.store.core import StateMachine
from raftkube.store.server import hub, past
from raftkube.store.server.catch_up import catch_up
from raftkube.store.server.hub import Hub, Watcher
from raftkube.store.server.machine import StoreMachine
from raftkube.store.server.settings import ServerSettings
from raftkube.store.server.watch_log import EncodedEvent, GroupLog, Router, Selector
from raftkube.types import LogIndex, Revision
from raftkube.wire import rpc
from raftkube.wire.frames import FrameReader, pack, unpack
from raftkube.wire.store import (
    PUT_EVENT,
    Compact,
    DeleteRange,
    Event,
    KeyValue,
    Op,
    Put,
    Txn,
    op_to_wire,
    prefix_end,
)


class FakeSink:
    """Takes frames while `open`; keeps what each watch was sent."""

    def __init__(self, hub: Hub) -> None:
        self.open = True
        self.hub = hub
        self.frames: list[list[Any]] = []
        self.sends = 0
        self.room = trio.Event()

    def try_send(self, frame: bytes) -> bool:
        if self.open:
            self.sends += 1
            self.frames += [unpack(body) for body in FrameReader().feed(frame)]
        return self.open

    def send(self, frame: bytes) -> None:
        self.frames += [unpack(body) for body in FrameReader().feed(frame)]

    async def send_wait(self, frame: bytes) -> None:
        while not self.try_send(frame):
            await self.room.wait()
        await trio.lowlevel.checkpoint()

    def block(self) -> None:
        self.open = False

    def unblock(self) -> None:
        self.open = True
        room, self.room = self.room, trio.Event()
        room.set()
        self.hub.resume(self)

    def deliveries(self, watch_id: int) -> list[tuple[int, list[tuple[int, bytes, int]]]]:
        """(revision, [(type, key, mod revision)]) of each complete delivery to a watch."""
        made = []
        fragments: list[Any] = []
        for kind, ids, revision, *rest in self.frames:
            if watch_id not in ids:
                continue
            if kind == rpc.FRAGMENT:
                fragments += rest[0]
            elif kind == rpc.EVENTS:
                events = [(event[0], event[1][0], event[1][3]) for event in [*fragments, *rest[0]]]
                made.append((revision, events))
                fragments = []
        return made

    def endings(self, watch_id: int) -> list[list[Any]]:
        return [frame[2] for frame in self.frames if frame[0] == rpc.ENDED and watch_id in frame[1]]


class CreepingClock:
    """Each look at it costs a millisecond, so that sending seems expensive and events are gathered."""

    def __init__(self) -> None:
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return trio.current_time() + self.looks * 0.001

    def wall(self) -> float:
        return self.monotonic()


@dataclass
class World:
    """A machine and its hub; each watcher's request is kept with where it started."""

    nursery: trio.Nursery
    settings: ServerSettings = field(default_factory=ServerSettings)

    def __post_init__(self) -> None:
        self.machine = StoreMachine()
        self.hub = Hub(self.settings, CreepingClock(), self.machine.core.revision)
        self.machine.observe(
            events=self.hub.publish,
            lease=lambda result: None,
            restored=lambda: self.hub.reset(self.machine.core.revision),
        )
        self.index = 0
        self.lost: list[Watcher] = []
        self.count = 0

    def apply(self, *ops: Op) -> list[Any]:
        self.index += 1
        return self.machine.apply(LogIndex(self.index), pack([op_to_wire(op) for op in ops]))

    def watch(self, sink: FakeSink, selector: Selector, start: int = 0) -> Watcher:
        self.count += 1
        request = rpc.WatchRequest(
            self.count, selector.key, selector.range_end, start, selector.prev_kv, False,
            selector.no_put, selector.no_delete,
        )  # fmt: skip

        def restart(watcher: Watcher, after: int) -> None:
            self.nursery.start_soon(self._catch_up, watcher, sink, after)

        watcher = Watcher(request, sink, restart=restart, ended=lambda: None)
        if start == 0:
            self.hub.join(watcher)
        else:
            restart(watcher, start - 1)
        return watcher

    async def _catch_up(self, watcher: Watcher, sink: FakeSink, after: int) -> None:
        try:
            await catch_up(self.machine, self.hub, watcher, sink, after)  # type: ignore[arg-type]
        except Compacted:
            self.lost.append(watcher)


async def in_world(body: Callable[[World], Any], settings: ServerSettings | None = None) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, settings or ServerSettings())
        await body(world)
        nursery.cancel_scope.cancel()


EVERYTHING = Selector(b"\x00", b"\x00")
KEYS = [b"a", b"a/1", b"a/2", b"b", b"b/1", b"c"]
SELECTORS = [
    EVERYTHING,
    Selector(b"a", b""),
    Selector(b"a/", prefix_end(b"a/")),
    Selector(b"a", b"b\x00"),
    Selector(b"b", b"\x00"),
    Selector(b"a", b"c", prev_kv=True),
    Selector(b"\x00", b"\x00", no_put=True),
    Selector(b"\x00", b"\x00", no_delete=True),
]
KEY = st.sampled_from(KEYS)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEY),
        st.tuples(st.just("delete"), KEY),
        st.tuples(st.just("txn"), st.lists(KEY, min_size=1, max_size=4, unique=True)),
        st.tuples(
            st.just("watch"),
            st.integers(0, 2),
            st.sampled_from(SELECTORS),
            st.integers(-3, 8) | st.none(),
            st.booleans(),
        ),
        st.tuples(st.just("block"), st.integers(0, 2)),
        st.tuples(st.just("unblock"), st.integers(0, 2)),
        st.tuples(st.just("mark"), st.integers(0, 20)),
        st.tuples(st.just("leave"), st.integers(0, 20)),
        st.tuples(st.just("restore")),
        st.tuples(st.just("settle")),
        st.tuples(st.just("tick")),
    ),
    min_size=20,
    max_size=80,
)


def expected(machine: StateMachine, watcher: Watcher, start: int) -> list[tuple[int, bytes, int]]:
    asked = watcher.request
    batch = machine.events_between(Revision(start - 1), asked.key, asked.range_end, 10**9)
    return [
        (event.type, event.kv.key, event.kv.mod_revision)
        for _, events in batch.revisions
        for event in events
        if not (asked.no_put if event.type == PUT_EVENT else asked.no_delete)
    ]


class Player:
    """Plays one list of steps, and remembers where each watch started."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sinks = [FakeSink(world.hub) for _ in range(3)]
        self.watchers: list[tuple[Watcher, FakeSink, int]] = []
        self.left: set[Watcher] = set()

    async def play(self, step: tuple[Any, ...]) -> None:
        world = self.world
        match step:
            case ("put", key):
                world.apply(Put(key, b"v"))
            case ("delete", key):
                world.apply(DeleteRange(key))
            case ("txn", keys):
                world.apply(Txn(success=tuple(Put(key, b"t") for key in keys)))
            case ("watch", sink, selector, offset, settle):
                now = world.hub.revision
                start = 0 if offset is None else max(2, now - offset)
                watcher = world.watch(self.sinks[sink], selector, start)
                self.watchers.append((watcher, self.sinks[sink], start or now + 1))
                if settle:
                    await trio.testing.wait_all_tasks_blocked()
            case ("block", sink):
                self.sinks[sink].block()
            case ("unblock", sink):
                self.sinks[sink].unblock()
            case ("mark", number) if self.watchers:
                watcher = self.watchers[number % len(self.watchers)][0]
                if watcher not in self.left:
                    world.hub.mark(watcher)
            case ("leave", number) if self.watchers:
                watcher = self.watchers[number % len(self.watchers)][0]
                if watcher.subscription is not None:
                    world.hub.leave(watcher)
                    self.left.add(watcher)
            case ("restore",):
                world.machine.restore(iter(list(world.machine.snapshot())))
            case ("settle",):
                await trio.testing.wait_all_tasks_blocked()

            case ("tick",):
                await trio.sleep(0.6)  # virtual: marks are sent, subscriptions merge

    async def finish(self) -> None:
        """Everybody gets there, without being asked for marks."""
        for _ in range(4):  # whoever waits for a future revision
            self.world.apply(Put(b"c", b"end"))
        for sink in self.sinks:
            sink.unblock()
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.1)  # virtual: what was gathered is flushed

    async def check(self) -> None:
        for watcher, sink, start in self.watchers:
            deliveries = sink.deliveries(watcher.request.watch_id)
            seen = [event for _, events in deliveries for event in events]
            wanted = expected(self.world.machine.core, watcher, start)
            assert seen == (wanted[: len(seen)] if watcher in self.left else wanted)
            check_deliveries(deliveries)

    async def check_marks(self) -> None:
        for watcher, sink, _ in self.watchers:
            if watcher not in self.left:
                self.world.hub.mark(watcher)
                deliveries = sink.deliveries(watcher.request.watch_id)
                assert deliveries[-1][0] == self.world.hub.revision
                check_deliveries(deliveries)


@pytest.mark.parametrize("direct_max", [64, 1], ids=["direct", "by-the-task"])
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(steps=STEPS)
def test_every_watcher_sees_each_event_once_in_order_and_whole_revisions(
    direct_max: int, steps: list[Any]
) -> None:
    async def body(world: World) -> None:
        world.nursery.start_soon(world.hub.run)
        player = Player(world)
        for step in steps:
            await player.play(step)
        await player.finish()
        await player.check()
        await player.check_marks()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "_DIRECT_MAX", direct_max)
        patch.setattr(hub, "_SLICE", 1)
        patch.setattr(past, "_EVENTS_PER_SLICE", 2)
        often = ServerSettings(progress_interval_s=0.5)
        trio.run(in_world, body, often, clock=trio.testing.MockClock(autojump_threshold=0))


def check_deliveries(deliveries: list[tuple[int, list[tuple[int, bytes, int]]]]) -> None:
    """A delivery's revision bounds its events, later ones lie above it: no revision is cut in two."""
    complete = 0
    for revision, events in deliveries:
        assert revision >= complete
        for _, _, mod_revision in events:
            assert complete < mod_revision <= revision
        complete = revision


async def test_an_idle_hub_sends_within_the_step_that_applied() -> None:
    async def body(world: World) -> None:
        sink = FakeSink(world.hub)
        watcher = world.watch(sink, EVERYTHING)
        world.apply(Put(b"k", b"v"))
        assert sink.deliveries(watcher.request.watch_id) == [(2, [(PUT_EVENT, b"k", 2)])]

    await in_world(body)


async def test_a_thousand_watchers_of_one_connection_share_one_frame() -> None:
    async def body(world: World) -> None:
        sink = FakeSink(world.hub)
        watchers = [world.watch(sink, EVERYTHING) for _ in range(1000)]
        world.apply(Put(b"k", b"v"))
        assert sink.sends == 1
        assert all(len(sink.deliveries(each.request.watch_id)) == 1 for each in watchers)

    await in_world(body)


async def test_an_event_is_encoded_once_for_groups_and_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    from raftkube.store.server import watch_log

    packed: list[Any] = []

    def counting(message: Any) -> bytes:
        packed.append(message)
        return pack(message)

    monkeypatch.setattr(watch_log, "pack", counting)

    async def body(world: World) -> None:
        for selector in (EVERYTHING, Selector(b"k", b""), Selector(b"k", b"l")):
            for _ in range(5):
                world.watch(FakeSink(world.hub), selector)
        world.apply(Put(b"k", b"v"))
        assert len(packed) == 1

    await in_world(body)


async def test_a_watcher_that_falls_too_far_behind_is_ended_with_its_last_revision() -> None:
    async def body(world: World) -> None:
        slow, fast = FakeSink(world.hub), FakeSink(world.hub)
        slow_watcher, fast_watcher = world.watch(slow, EVERYTHING), world.watch(fast, EVERYTHING)
        world.apply(Put(b"k", b"seen"))
        slow.block()
        for _ in range(20):
            world.apply(Put(b"k", bytes(1000)))
        ((code, _, fields),) = slow.endings(slow_watcher.request.watch_id)
        assert code == "watch_ended"
        assert (fields["revision"], fields["reason"]) == (2, "slow")
        assert slow_watcher.subscription is None
        assert sum(len(e) for _, e in fast.deliveries(fast_watcher.request.watch_id)) == 21

    await in_world(body, ServerSettings(watch_lag_bytes_max=10_000, flush_window_max_s=0.0))


async def test_what_slow_watchers_keep_alive_is_bounded() -> None:
    async def body(world: World) -> None:
        sink = FakeSink(world.hub)
        watcher = world.watch(sink, EVERYTHING)
        for _ in range(5000):
            world.apply(Put(b"k", bytes(1000)))
        assert watcher.subscription is not None
        group = watcher.subscription.group
        assert group.end == 5000
        assert len(group._items) < 2500  # trimmed as it went: nobody needs the old ones
        assert len(sink.deliveries(watcher.request.watch_id)) > 0

    await in_world(body, ServerSettings(flush_window_max_s=0.0))


async def test_compaction_overtakes_a_watcher_that_catches_up() -> None:
    async def body(world: World) -> None:
        for number in range(3000):
            world.apply(Put(b"k", b"%d" % number))
        sink = FakeSink(world.hub)
        sink.block()
        watcher = world.watch(sink, EVERYTHING, start=2)
        await trio.testing.wait_all_tasks_blocked()
        world.apply(Compact(2900))
        sink.unblock()
        await trio.testing.wait_all_tasks_blocked()
        assert world.lost == [watcher]
        seen = [event[2] for _, events in sink.deliveries(watcher.request.watch_id) for event in events]
        assert seen == list(range(2, 2 + len(seen)))

    await in_world(body)


async def test_a_snapshot_that_skips_history_ends_watchers_that_need_it() -> None:
    async def body(world: World) -> None:
        ahead = StateMachine()
        for _ in range(50):
            ahead.apply(Put(b"k", b"v"))
        ahead.apply(Compact(40))
        sink = FakeSink(world.hub)
        watcher = world.watch(sink, EVERYTHING)
        world.apply(Put(b"k", b"v"))
        world.machine.restore(iter(list(ahead.snapshot())))
        await trio.testing.wait_all_tasks_blocked()
        assert world.lost == [watcher]
        late = world.watch(sink, EVERYTHING, start=45)
        await trio.testing.wait_all_tasks_blocked()
        assert [e[2] for _, events in sink.deliveries(late.request.watch_id) for e in events] == list(
            range(45, 52)
        )

    await in_world(body)


async def test_a_mark_asked_of_a_watcher_that_waits_survives_a_snapshot() -> None:
    async def body(world: World) -> None:
        ahead = StateMachine()
        for _ in range(5):
            ahead.apply(Put(b"k", b"v"))
        sink = FakeSink(world.hub)
        watcher = world.watch(sink, Selector(b"idle", b""), start=4)
        await trio.testing.wait_all_tasks_blocked()
        world.hub.mark(watcher)
        assert sink.frames == []
        world.machine.restore(iter(list(ahead.snapshot())))
        await trio.testing.wait_all_tasks_blocked()
        assert sink.deliveries(watcher.request.watch_id)[-1] == (6, [])

    await in_world(body)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=3), st.binary(max_size=3)), max_size=12), st.data())
def test_the_router_finds_the_groups_that_a_scan_finds(ranges: list[Any], data: Any) -> None:
    router, groups = Router(), []
    for key, range_end in [*ranges, *((key, prefix_end(key)) for key, _ in ranges)]:
        groups.append(GroupLog(Selector(key, range_end)))
        router.add(groups[-1])
    removed = data.draw(st.lists(st.sampled_from(groups), unique=True)) if groups else []
    for group in removed:
        router.remove(group)
    key = data.draw(st.binary(min_size=1, max_size=4))

    def holds(group: GroupLog) -> bool:
        start, end = group.selector[:2]
        if not end:
            return key == start
        return start <= key and (end == b"\x00" or key < end)

    wanted = {group for group in groups if holds(group)} - set(removed)
    found = list(router.groups(key))
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_a_long_revision_is_cut_into_fragments_that_end_with_events() -> None:
    kv = KeyValue(b"k", bytes(1_500_000), 2, 2, 1, 0)
    group = GroupLog(EVERYTHING)
    group.append(2, [EncodedEvent(Event(PUT_EVENT, kv, None)) for _ in range(10)], 0)
    frames = [unpack(body) for body in FrameReader().feed(group.segment(0).frame(pack([1])))]
    assert [frame[0] for frame in frames] == [rpc.FRAGMENT] * (len(frames) - 1) + [rpc.EVENTS]
    assert len(frames) > 1
    assert sum(len(frame[3]) for frame in frames) == 10
