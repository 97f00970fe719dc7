"""Feeding a watcher from the history until it stands where the hub does."""

from __future__ import annotations

from typing import Final

import trio

from raftkube.net.outbox import Outbox
from raftkube.store.core import EventBatch
from raftkube.store.server.hub import Hub, Watcher
from raftkube.store.server.machine import StoreMachine
from raftkube.store.server.watch_log import EncodedEvent, Item, Selector, make_segment
from raftkube.types import Revision
from raftkube.wire.frames import pack

_EVENTS_PER_SLICE: Final = 512


async def catch_up(machine: StoreMachine, hub: Hub, watcher: Watcher, outbox: Outbox, after: int) -> None:
    """Send `watcher` what it asks for of the revisions above `after`, then join it to the hub.

    Raises Compacted: the history it needs is gone; nothing of a revision was sent in part. Cancelled:
    the watcher has not joined.
    """
    asked, ids = watcher.request, pack([watcher.request.watch_id])
    while True:
        if after > hub.revision:
            hub.join_at(watcher, after + 1)
            return
        batch = machine.core.events_between(Revision(after), asked.key, asked.range_end, _EVENTS_PER_SLICE)
        frames, count = _frames(batch, watcher.selector, ids)
        after = batch.through
        hub.events_sent += count
        if frames and not outbox.try_send(frames):
            await outbox.send_wait(frames)
        elif after >= hub.revision:  # no await since the history was read: nothing can lie between
            hub.join(watcher)
            return
        await trio.lowlevel.checkpoint()


def _frames(batch: EventBatch, selector: Selector, ids: bytes) -> tuple[bytes, int]:
    """With how many events are in them."""
    items = []
    for revision, events in batch.revisions:
        chosen = tuple([EncodedEvent(e).encoding(selector.prev_kv) for e in events if selector.wants(e)])
        if chosen:
            items.append(Item(revision, chosen, 0))
    frames = []
    start = count = 0
    while start < len(items):
        segment = make_segment(items[start:], start)
        frames.append(segment.frame(ids))
        count += segment.event_count
        start = segment.end
    return b"".join(frames), count


def check_start(machine: StoreMachine, start_revision: int) -> None:
    """Raises Compacted if a watch cannot start at `start_revision` any more."""
    machine.core.events_between(Revision(start_revision - 1), b"\x00", b"", 1)
