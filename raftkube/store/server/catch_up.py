"""Feeding a watcher from the history until it stands where the hub does."""

from __future__ import annotations

from raftkube.net.outbox import Outbox
from raftkube.store.server.hub import Hub, Watcher
from raftkube.store.server.machine import StoreMachine
from raftkube.types import Revision
from raftkube.wire.frames import pack


async def catch_up(machine: StoreMachine, hub: Hub, watcher: Watcher, outbox: Outbox, after: int) -> None:
    """Send `watcher` what it asks for of the revisions above `after`, then join it to the hub.

    Raises Compacted: the history it needs is gone; nothing of a revision was sent in part. Cancelled:
    the watcher has not joined.
    """
    ids = pack([watcher.request.watch_id])
    with hub.past.reading():
        while True:
            async with hub.past.turn:
                if after > hub.revision:
                    hub.join_at(watcher, after + 1)
                    return
                piece = hub.past.slice(machine.core, watcher.selector, after)
                after = piece.through
                hub.events_sent += piece.event_count
                frames = piece.frames(ids)
                taken = not frames or outbox.try_send(frames)
                if taken and after >= hub.revision:  # no await since it was read: nothing can lie between
                    hub.join(watcher)
                    return
            if not taken:
                await outbox.send_wait(frames)


def check_start(machine: StoreMachine, start_revision: int) -> None:
    """Raises Compacted if a watch cannot start at `start_revision` any more."""
    machine.core.events_between(Revision(start_revision - 1), b"\x00", b"", 1)
