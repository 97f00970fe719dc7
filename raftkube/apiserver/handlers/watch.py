"""watch: events from the cache's log, in the client's form, for as long as the client stays.

A watcher holds a cursor into the log. When it is idle, the task that applies events hands it the bytes
itself (`advance`), if the socket takes them; else the watcher's own task goes on from the cursor, all that
is due in one send. Whoever falls behind the log is cut off: its client starts again from where it was.
Source: k8s.io/apiserver/pkg/storage/cacher, pkg/endpoints/handlers/watch.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import trio

from raftkube.api.status import ApiError, expired
from raftkube.apiserver.cache import ResourceCache, WatchCache
from raftkube.apiserver.call import Call
from raftkube.apiserver.core.query import ListOptions, list_options
from raftkube.apiserver.handlers.read import Selection, selection, wait_fresh, wait_not_older
from raftkube.apiserver.rendering import WATCHES, EventEncoder, error_line, represent
from raftkube.apiserver.stored import Stored
from raftkube.apiserver.watch_view import WatchView, view_of
from raftkube.net.http import AnyResponse, BodySender, StreamResponse

TIMEOUT_MIN_S: Final = 1_800
BOOKMARK_PERIOD_S: Final = 60.0
_CHUNK_BYTES: Final = 1024 * 1024


async def watch(call: Call) -> AnyResponse:
    """A stream of events. Errors before it begins are plain Statuses, but for a revision that is gone:
    that is an ERROR event, as upstream answers."""
    form = represent(call.headers.get("accept"), WATCHES)
    options = list_options(call.params, watch=True)
    chosen = selection(call.resource, call.info.namespace, options, call.info.name)
    include = call.params.get("includeObject", "")
    encoder = EventEncoder(call.resource, form, include)
    await _settle(call, options)
    view = view_of(call.parts.cache.of(call.resource), call.resource, chosen, form, include)
    watcher = _Watcher(call, options, chosen, encoder, view)
    return StreamResponse(200, watcher.run)


async def _settle(call: Call, options: ListOptions) -> None:
    """Wait until the cache may answer for the revision that was asked for."""
    if options.resource_version:
        await wait_not_older(call, options.resource_version)
    elif options.resource_version is None:
        await wait_fresh(call)


class _Ended(Exception):
    """The watch is over; its client starts a new one."""


class _Watcher:
    """One client's place in the log of a resource."""

    def __init__(
        self, call: Call, options: ListOptions, chosen: Selection, encoder: EventEncoder, view: WatchView
    ) -> None:
        self._cache: WatchCache = call.parts.cache
        self._log: ResourceCache = self._cache.of(call.resource)
        self._clock = call.parts.clock
        self._options = options
        self._chosen = chosen
        self._encoder = encoder
        self._view = view
        timeout_s = options.timeout_s
        if not timeout_s or timeout_s < 0:
            timeout_s = int(TIMEOUT_MIN_S * (1 + call.parts.rng.random()))
        self._timeout_s = timeout_s
        self._position = 0
        self._wake = trio.Event()
        self._idle = False
        self._over = False  # by our side, cleanly
        self._lost = False  # some events can no longer be delivered
        self._scope = trio.CancelScope()
        self._sender: BodySender

    async def run(self, sender: BodySender) -> None:
        """Until the timeout, the client's leaving, or an end from our side."""
        self._sender = sender
        with trio.move_on_after(self._timeout_s) as self._scope:
            start = self._begin()
            if isinstance(start, ApiError):
                await sender.send(error_line(start))
                return
            self._log.follow(self)
            try:
                await self._send_lines(start)
                await self._go_on()
            finally:
                self._log.unfollow(self)
        if self._lost:
            # A clean end would look as if nothing was missed.
            raise trio.BrokenResourceError("the watcher fell behind")
        if self._options.allow_bookmarks and not self._over:
            await sender.send(self._encoder.bookmark(self._delivered()))

    # The task that applies events calls these ------------------------------------------------

    def advance(self) -> None:
        """Send what is new at once if this watcher waits for it and the socket takes it."""
        if not self._idle:
            self._cut_off_if_lost()
            return
        position, header = self._position, self._encoder.header
        try:
            chunk = self._next_chunk()
            if chunk and not self._sender.send_nowait(chunk):
                self._position, self._encoder.header = position, header
        except Exception:  # noqa: BLE001  the boundary: the watcher's own task meets the same and ends
            self._position, self._encoder.header = position, header
        if self._position < self._log.end_position or self._sender.unsent:
            self._idle = False
            self._wake.set()

    def _cut_off_if_lost(self) -> None:
        """Stuck in a send, or too slow, while the log moved on: nobody waits for its socket."""
        if self._log.events_from(self._position, 0) is None:
            self._lost = True
            self._scope.cancel()

    def end(self) -> None:
        """The log was started over."""
        self._over = True
        self._wake.set()

    # The watcher's own task --------------------------------------------------------------------

    def _begin(self) -> list[bytes] | ApiError:
        """The first lines, and the cursor behind them. No await: state and cursor belong together."""
        options, revision = self._options, self._options.resource_version
        self._position = self._log.end_position
        if options.send_initial_events or (options.send_initial_events is None and not revision):
            lines = self._state_lines()
            if options.send_initial_events:
                lines.append(self._encoder.bookmark(self._cache.revision, initial_end=True))
            return lines
        if revision:
            position = self._log.position_after(revision)
            if position is None:
                return expired(f"too old resource version: {revision} ({self._cache.revision})")
            self._position = position
        return []

    def _state_lines(self) -> list[bytes]:
        now = self._clock.wall()
        objects: Iterable[Stored] = self._log.select(self._chosen.prefix)
        if not self._chosen.everything:
            objects = filter(self._chosen.matches, objects)
        return [self._encoder.state(stored, now) for stored in objects]

    async def _send_lines(self, lines: list[bytes]) -> None:
        start, size = 0, 0
        for index, line in enumerate(lines):
            size += len(line)
            if size >= _CHUNK_BYTES:
                await self._sender.send(b"".join(lines[start : index + 1]))
                start, size = index + 1, 0
        if start < len(lines):
            await self._sender.send(b"".join(lines[start:]))

    async def _go_on(self) -> None:
        bookmark_at = trio.current_time() + BOOKMARK_PERIOD_S
        while not self._over:
            try:
                chunk = self._next_chunk()
            except _Ended:
                self._lost = True
                return
            if chunk:
                await self._sender.send(chunk)
            elif self._position < self._log.end_position:
                await trio.lowlevel.checkpoint()
            elif self._sender.unsent:
                await self._sender.drain()
            elif await self._sleep(bookmark_at):
                bookmark_at = trio.current_time() + BOOKMARK_PERIOD_S
                if self._options.allow_bookmarks:
                    await self._sender.send(self._encoder.bookmark(self._delivered()))

    async def _sleep(self, until: float) -> bool:
        """Be idle until woken, or `until` (then True)."""
        self._wake = trio.Event()
        self._idle = True
        try:
            with trio.move_on_at(until) as scope:
                await self._wake.wait()
        finally:
            self._idle = False
        return scope.cancelled_caught

    def _delivered(self) -> int:
        """A revision up to which this client has everything."""
        if self._position == self._log.end_position:
            return self._cache.revision
        events = self._log.events_from(self._position, 1)
        return events[0].revision - 1 if events else 0

    def _next_chunk(self) -> bytes:
        """What is due next, joined; moves the cursor. Raises _Ended: the log no longer has it."""
        chunk = self._view.chunk(self._position, header=self._encoder.header, now=self._clock.wall())
        if chunk is None:
            raise _Ended
        self._position = chunk.end
        self._encoder.header = chunk.header
        return chunk.data
