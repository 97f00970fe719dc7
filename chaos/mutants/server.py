"""Mutants of what a member does for watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import trio

from chaos.mutants.mutant import Mutant
from raftkube.store.server import past, session
from raftkube.store.server.hub import Hub
from raftkube.store.server.watch_log import GroupLog, Router
from raftkube.wire.frames import pack
from raftkube.wire.rpc import EVENTS, events_frame

Function = Callable[..., Any]


def _join_too_soon(original: Function) -> Function:
    async def join(machine: Any, hub: Hub, watcher: Any, outbox: Any, after: int) -> None:
        if after > hub.revision:
            hub.join_at(watcher, after + 1)
            return
        frames = hub.past.slice(machine.core, watcher.selector, after).frames(
            pack([watcher.request.watch_id])
        )
        if frames:
            await outbox.send_wait(frames)
        await trio.lowlevel.checkpoint()
        hub.join(watcher)

    return join


def _last_twice(original: Function) -> Function:
    def encode(batch: Any, selector: Any) -> past.Slice:
        if len(batch.revisions) > 40:
            batch = batch._replace(revisions=(*batch.revisions, batch.revisions[-1]))
        return original(batch, selector)  # type: ignore[no-any-return]

    return encode


def _cut_the_last(original: Function) -> Function:
    def encode(batch: Any, selector: Any) -> past.Slice:
        if len(batch.revisions) > 20 and len(batch.revisions[-1][1]) > 1:
            revision, events = batch.revisions[-1]
            batch = batch._replace(revisions=(*batch.revisions[:-1], (revision, events[:-1])))
        return original(batch, selector)  # type: ignore[no-any-return]

    return encode


def _mark_ahead(original: Function) -> Function:
    def send_marks(self: Hub, subscription: Any) -> bool:
        ids = pack(sorted(set(subscription.marks)))
        return bool(subscription.sink.try_send(events_frame(EVENTS, ids, self.revision + 1, 0, b"")))

    return send_marks


def _start_not_covered(original: Function) -> Function:
    def groups(self: Router, key: bytes) -> Any:
        return (group for group in original(self, key) if key != group.selector.key)

    return groups


def _large_revisions_cut(original: Function) -> Function:
    def append(self: GroupLog, revision: int, events: Any, offset: int) -> bool:
        listed = list(events)
        return bool(original(self, revision, listed[:-1] if len(listed) > 6 else listed, offset))

    return append


_WATCHES: Final = {"workload": {"watches": 2, "think_s": 0.1, "clients": 3}}

MUTANTS: Final = (
    Mutant("watch-joins-too-soon", "a watch that catches up joins the newest events without looking between",
           ((session, "catch_up", _join_too_soon),), "link,kill,stop", _WATCHES,
           doubt="nothing is applied in the one turn of the loop that lies between"),
    Mutant("catch-up-repeats", "after more than forty revisions of the past the last comes twice",
           ((past, "_encode", _last_twice),), "link,kill", _WATCHES),
    Mutant("catch-up-cuts", "of a catch-up of more than twenty revisions the last event is missing",
           ((past, "_encode", _cut_the_last),), "link,kill", _WATCHES),
    Mutant("mark-ahead", "a progress mark names the revision after the newest",
           ((Hub, "_send_marks", _mark_ahead),), "kill", _WATCHES),
    Mutant("range-without-start", "a watch of a range does not see the first key of it",
           ((Router, "groups", _start_not_covered),), "kill", _WATCHES),
    Mutant("large-revision-cut", "of a revision of more than six events a watch does not get the last",
           ((GroupLog, "append", _large_revisions_cut),), "link", _WATCHES),
)  # fmt: skip
