"""The watch hub of one member: every change once in, every watcher's events out.

Theory. Watchers that want the same share a group (`GroupLog`), and those of one connection that stand at
the same position share a `Subscription`: a cursor, never a queue. `publish` appends the events of what
was applied and sends them at once while sending is cheap; when it is not, events are gathered for a flush
window so that one send carries many. A socket that is full blocks only its own subscriptions: their
cursors stay, the connection's writer calls `resume` when there is room, and one that falls
`watch_lag_bytes_max` behind is ended with the last revision that it got completely.

Invariants:
* A watcher sees each matching event once, in order of revisions; all events of a revision come together.
* A mark or frame with revision r says: this watcher has been sent everything up to r.
* `publish` runs in the same step as apply (no await between), so the hub is never behind the state.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import trio

from raftkube.clock import Clock
from raftkube.errors import StoreError, WatchEnded
from raftkube.store.server.past import Past
from raftkube.store.server.settings import ServerSettings
from raftkube.store.server.watch_log import EncodedEvent, GroupLog, Router, Selector
from raftkube.wire.frames import pack
from raftkube.wire.rpc import EVENTS, WatchRequest, ended, events_frame
from raftkube.wire.store import Event

# Up to so many subscriptions are fed within the step that applied; more go through the hub's own task.
_DIRECT_MAX: Final = 64
_SLICE: Final = 64
_TRIM_BYTES: Final = 1_048_576
# Sending takes at most about a fifth of the time: the window is this many times the last flush's cost.
_WINDOW_PER_COST: Final = 4.0

Revisions = Sequence[tuple[int, tuple[Event, ...]]]


class Sink(Protocol):
    """The sending side of a connection, as the hub needs it."""

    def try_send(self, frame: bytes) -> bool:
        """Take all of `frame` now, or return False and call `Hub.resume` when there is room."""
        ...

    def send(self, frame: bytes) -> None:
        """Take `frame`, keeping it until there is room: for last words only."""
        ...


class Watcher:
    """One watch of one connection. `subscription` is None while it catches up or waits for the future."""

    __slots__ = ("ended", "mark_wanted", "request", "restart", "sink", "subscription", "waits")

    def __init__(
        self,
        request: WatchRequest,
        sink: Sink,
        *,
        restart: Callable[[Watcher, int], None],
        ended: Callable[[], None],
    ) -> None:
        self.request = request
        self.sink = sink
        self.restart = restart  # (watcher, after): feed it from the history, then `join` again
        self.ended = ended  # the hub has ended it and told the client
        self.subscription: Subscription | None = None
        self.mark_wanted = False
        self.waits = False  # for a future revision

    @property
    def selector(self) -> Selector:
        """The group it belongs to."""
        asked = self.request
        return Selector(asked.key, asked.range_end, asked.prev_kv, asked.no_put, asked.no_delete)


class Subscription:
    """The watchers of one connection and group that stand at one position."""

    __slots__ = ("blocked", "closed", "cursor", "group", "ids", "marks", "sink", "watchers")

    def __init__(self, group: GroupLog, sink: Sink) -> None:
        self.group = group
        self.sink = sink
        self.cursor = group.end
        self.watchers: dict[int, Watcher] = {}
        self.ids = b"\x90"
        self.marks: list[int] = []
        self.blocked = False
        self.closed = False

    def add(self, watcher: Watcher) -> None:
        """`watcher` stands where this subscription does."""
        self.watchers[watcher.request.watch_id] = watcher
        self.ids = pack(list(self.watchers))

    def discard(self, watcher: Watcher) -> None:
        """`watcher` is gone."""
        watch_id = watcher.request.watch_id
        if self.watchers.pop(watch_id, None) is not None:
            self.ids = pack(list(self.watchers))
            self.marks = [mark for mark in self.marks if mark != watch_id]


class HubFigures(NamedTuple):
    """`joined` watchers stand at a position of the hub; `slow` ones of them wait for their socket.
    `backlog_bytes`: how far the one furthest behind is behind, in bytes of all keys."""

    joined: int
    slow: int
    groups: int
    streams: int
    pending_events: int
    backlog_bytes: int


class Hub:
    """Feeds the watchers of one member; `run` is its task and must be running."""

    def __init__(self, settings: ServerSettings, clock: Clock, revision: int) -> None:
        self.revision = revision
        self.past = Past()  # for those that catch up
        self._settings = settings
        self._clock = clock
        self._router = Router()
        self._groups: dict[Selector, tuple[GroupLog, list[Subscription]]] = {}
        self._dirty: dict[GroupLog, None] = {}
        self._blocked: dict[Subscription, None] = {}
        self._future: list[tuple[int, int, Watcher]] = []
        self._future_count = 0
        self._notified: dict[Watcher, None] = {}
        # Calls back with None once this member is known to have applied all that was committed before.
        self.confirm: Callable[[Callable[[StoreError | None], None]], None] = lambda done: done(None)
        self._offset = 0
        self._next_flush = 0.0
        self.events_sent = 0
        self.watches_ended_slow = 0
        self._wake = trio.Event()

    # What the session asks.

    def join(self, watcher: Watcher) -> None:
        """`watcher` sees everything after the hub's revision, which it must have reached."""
        watcher.waits = False
        subscription = self._subscription_for(watcher)
        subscription.add(watcher)
        watcher.subscription = subscription
        if watcher.request.progress_notify:
            self._notified[watcher] = None
        if watcher.mark_wanted:
            self.mark(watcher)

    def join_at(self, watcher: Watcher, start_revision: int) -> None:
        """`watcher` sees everything from `start_revision` on, which lies in the future."""
        watcher.waits = True
        self._future_count += 1
        heapq.heappush(self._future, (start_revision, self._future_count, watcher))

    def leave(self, watcher: Watcher) -> None:
        """Forget `watcher`; idempotent."""
        self._notified.pop(watcher, None)
        if watcher.waits:
            watcher.waits = False
            self._future = [entry for entry in self._future if entry[2] is not watcher]
            heapq.heapify(self._future)
        subscription, watcher.subscription = watcher.subscription, None
        if subscription is not None:
            subscription.discard(watcher)
            if not subscription.watchers:
                self._close(subscription)

    def mark(self, watcher: Watcher) -> None:
        """Send `watcher` a progress mark behind all events up to now (later, if it catches up)."""
        subscription = watcher.subscription
        watcher.mark_wanted = subscription is None
        if subscription is not None:
            subscription.marks.append(watcher.request.watch_id)
            if not subscription.blocked:
                self._pump(subscription)

    def resume(self, sink: Sink) -> None:
        """There is room in `sink` again."""
        for subscription in [entry for entry in self._blocked if entry.sink is sink]:
            if subscription.closed:
                continue
            del self._blocked[subscription]
            subscription.blocked = False
            self._pump(subscription)

    def end_all(self, sink: Sink, *, reason: str) -> None:
        """End every watch of `sink` that has joined, saying where to resume."""
        for _, subscriptions in list(self._groups.values()):
            for subscription in [entry for entry in subscriptions if entry.sink is sink]:
                self._end(subscription, "the member stops serving this watch", reason)

    # What apply does.

    def publish(self, revisions: Revisions) -> None:
        """Take the events of what was just applied, by revision; at least one."""
        if not self._groups and not self._future:
            self.revision = revisions[-1][0]  # nobody watches
            return
        for revision, events in revisions:
            self._admit_future(revision)
            self._append(revision, [EncodedEvent(event) for event in events])
            self.revision = revision
        if self._dirty:
            self._flush_or_wake()

    def reset(self, revision: int) -> None:
        """The state was replaced by a snapshot: every watcher goes on from the history."""
        restarted = []
        self.past.forget()
        for _, subscriptions in list(self._groups.values()):
            for subscription in list(subscriptions):
                after = self._complete(subscription)
                restarted += [(watcher, after) for watcher in subscription.watchers.values()]
        self.revision = revision
        waiting, self._future = self._future, []
        for watcher, after in [*restarted, *((entry[2], entry[0] - 1) for entry in waiting)]:
            joined = watcher.subscription
            if joined is not None and watcher.request.watch_id in joined.marks:
                watcher.mark_wanted = True
            self.leave(watcher)
            watcher.restart(watcher, after)

    def figures(self) -> HubFigures:
        """What is open and what waits, now: O(subscriptions)."""
        pending = backlog_bytes = slow = joined = 0
        sinks: set[Sink] = set()
        for group, subscriptions in self._groups.values():
            for subscription in subscriptions:
                count = len(subscription.watchers)
                joined += count
                sinks.add(subscription.sink)
                slow += count * subscription.blocked
                if subscription.cursor < group.end:
                    item = group.item(subscription.cursor)
                    pending += (group.event_count - item.before) * count
                    backlog_bytes = max(backlog_bytes, self._offset - item.offset)
        return HubFigures(joined, slow, len(self._groups), len(sinks), pending, backlog_bytes)

    async def run(self) -> None:
        """Flush what was gathered and send progress marks, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush_when_due)
            nursery.start_soon(self._tick)

    # Inside.

    def _subscription_for(self, watcher: Watcher) -> Subscription:
        selector = watcher.selector
        if selector not in self._groups:
            group = GroupLog(selector)
            self._groups[selector] = (group, [])
            self._router.add(group)
        group, subscriptions = self._groups[selector]
        for subscription in reversed(subscriptions):
            if subscription.sink is watcher.sink and subscription.cursor == group.end:
                return subscription
        subscription = Subscription(group, watcher.sink)
        subscriptions.append(subscription)
        return subscription

    def _close(self, subscription: Subscription) -> None:
        subscription.closed = True
        self._blocked.pop(subscription, None)
        group, subscriptions = self._groups[subscription.group.selector]
        subscriptions.remove(subscription)
        if not subscriptions:
            del self._groups[group.selector]
            self._router.remove(group)
            self._dirty.pop(group, None)

    def _admit_future(self, revision: int) -> None:
        while self._future and self._future[0][0] <= revision:
            self.join(heapq.heappop(self._future)[2])

    def _append(self, revision: int, events: list[EncodedEvent]) -> None:
        for group, matched in self._router.match(events):
            if group.append(revision, matched, self._offset):
                self._dirty[group] = None
        self._offset += sum([event.size_bytes for event in events])

    def _flush_or_wake(self) -> None:
        count = sum([len(self._subscriptions(group)) for group in self._dirty])
        if count > _DIRECT_MAX or self._clock.monotonic() < self._next_flush:
            self._wake.set()
            return
        started = self._clock.monotonic()
        dirty, self._dirty = self._dirty, {}
        for group in dirty:
            for subscription in list(self._subscriptions(group)):
                self._feed(subscription)
            self._trim(group)
        self._plan_next_flush(started)

    def _plan_next_flush(self, started: float) -> None:
        now = self._clock.monotonic()
        self._next_flush = now + min(self._settings.flush_window_max_s, _WINDOW_PER_COST * (now - started))

    async def _flush_when_due(self) -> None:
        while True:
            await self._wake.wait()
            await trio.sleep(max(0.0, self._next_flush - self._clock.monotonic()))
            self._wake = trio.Event()
            started = self._clock.monotonic()
            dirty, self._dirty = self._dirty, {}
            for group in dirty:
                await self._flush_group(group)
            self._plan_next_flush(started)

    async def _flush_group(self, group: GroupLog) -> None:
        """Feed a group's subscriptions in slices, so that a thousand of them hold up nobody."""
        subscriptions = list(self._subscriptions(group))
        for start in range(0, len(subscriptions), _SLICE):
            for subscription in subscriptions[start : start + _SLICE]:
                if not subscription.closed:
                    self._feed(subscription)
            await trio.lowlevel.checkpoint()
        self._trim(group)

    def _feed(self, subscription: Subscription) -> None:
        if subscription.blocked:
            self._end_if_lagging(subscription)
        else:
            self._pump(subscription)

    def _pump(self, subscription: Subscription) -> None:
        """Send until the subscription is at its group's end or the socket is full."""
        group, sink = subscription.group, subscription.sink
        while subscription.cursor < group.end:
            segment = group.segment(subscription.cursor)
            if not sink.try_send(segment.frame(subscription.ids)):
                self._block(subscription)
                return
            subscription.cursor = segment.end
            self.events_sent += segment.event_count * len(subscription.watchers)
        if subscription.marks and self._send_marks(subscription):
            subscription.marks = []

    def _send_marks(self, subscription: Subscription) -> bool:
        ids = pack(sorted(set(subscription.marks)))
        if subscription.sink.try_send(events_frame(EVENTS, ids, self.revision, 0, b"")):
            return True
        self._block(subscription)
        return False

    def _block(self, subscription: Subscription) -> None:
        subscription.blocked = True
        self._blocked[subscription] = None
        self._end_if_lagging(subscription)

    def _end_if_lagging(self, subscription: Subscription) -> None:
        group = subscription.group
        if subscription.cursor >= group.end:
            return
        lag_bytes = self._offset - group.item(subscription.cursor).offset
        if lag_bytes > self._settings.watch_lag_bytes_max:
            self.watches_ended_slow += len(subscription.watchers)
            self._end(subscription, f"the watch fell {lag_bytes} bytes behind", "slow")

    def _end(self, subscription: Subscription, message: str, reason: str) -> None:
        """Tell its watchers that they are over; the frame waits for room if it must."""
        revision = self._complete(subscription)
        error = WatchEnded(f"{message}; resume after revision {revision}", revision=revision, reason=reason)
        watchers = list(subscription.watchers.values())
        subscription.sink.send(ended(list(subscription.watchers), error.to_wire()))
        for watcher in watchers:
            self.leave(watcher)
            watcher.ended()

    def _complete(self, subscription: Subscription) -> int:
        """The last revision that its watchers have been sent completely."""
        group = subscription.group
        if subscription.cursor >= group.end:
            return self.revision
        return group.item(subscription.cursor).revision - 1

    def _trim(self, group: GroupLog) -> None:
        if group.trim_due(self._offset, _TRIM_BYTES):
            cursors = [subscription.cursor for subscription in self._subscriptions(group)]
            group.trim(min(cursors, default=group.end))

    def _subscriptions(self, group: GroupLog) -> list[Subscription]:
        """Empty for a group that is gone."""
        found = self._groups.get(group.selector)
        return found[1] if found is not None and found[0] is group else []

    def _merge(self, group: GroupLog) -> None:
        """Subscriptions of one connection that came to stand at one position become one again."""
        first: dict[Sink, Subscription] = {}
        for subscription in list(self._subscriptions(group)):
            if subscription.cursor < group.end or subscription.marks:
                continue
            kept = first.setdefault(subscription.sink, subscription)
            if kept is not subscription:
                for watcher in list(subscription.watchers.values()):
                    kept.add(watcher)
                    watcher.subscription = kept
                self._close(subscription)

    def _notify(self, error: StoreError | None) -> None:
        """Send the marks that were asked for at the beginning. A member without a leader may be far behind:
        it ends these watches, so that they go on elsewhere."""
        for watcher in list(self._notified):
            subscription = watcher.subscription
            if error is None:
                self.mark(watcher)
            elif subscription is not None:
                revision = self._complete(subscription)
                told = WatchEnded(
                    f"this member hears no leader; resume after revision {revision} at another",
                    revision=revision,
                    reason="no-leader",
                )
                watcher.sink.send(ended([watcher.request.watch_id], told.to_wire()))
                self.leave(watcher)
                watcher.ended()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(self._settings.progress_interval_s)
            for subscription in list(self._blocked):
                if not subscription.closed:
                    self._end_if_lagging(subscription)
            if self._notified:
                self.confirm(self._notify)
            for group, _ in list(self._groups.values()):
                self._trim(group)
                self._merge(group)
