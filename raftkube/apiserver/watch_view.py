"""What a resource's log looks like to those who watch the same selection in the same form.

Watchers that stand at the same place of the log are due the same bytes: they are selected, encoded and
joined once, for whoever comes first, and kept until the log goes on.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from raftkube.api.negotiation import Representation
from raftkube.api.resource import Resource
from raftkube.apiserver.cache import CacheEvent, ResourceCache
from raftkube.apiserver.handlers.read import Selection
from raftkube.apiserver.rendering import EventEncoder

_CHUNK_EVENTS: Final = 256
_CHUNK_BYTES: Final = 1024 * 1024
_KEPT: Final = 4  # places in the log


class Chunk(NamedTuple):
    """Lines that are due at a place of the log. end: the place behind them; header: whether a Table's columns
    are still to be sent after them."""

    data: bytes
    end: int
    header: bool


class WatchView:
    """One selection in one form."""

    def __init__(self, log: ResourceCache, chosen: Selection, encoder: EventEncoder) -> None:
        self._log = log
        self._chosen = chosen
        self._encoder = encoder
        self._log_end = -1  # the chunks are of the log up to there
        self._chunks: dict[tuple[int, bool], Chunk] = {}

    def chunk(self, position: int, *, header: bool, now: float) -> Chunk | None:
        """What is due at `position`, at most 256 events and about 1 MiB; None: the log no longer has it."""
        log = self._log
        if self._log_end != log.end_position:
            self._log_end = log.end_position
            self._chunks.clear()
        found = self._chunks.get((position, header))
        if found is None or log.events_from(position, 0) is None:
            found = self._make(position, header, now)
        return found

    def _make(self, position: int, header: bool, now: float) -> Chunk | None:
        events = self._log.events_from(position, _CHUNK_EVENTS)
        if events is None:
            return None
        self._encoder.header = header
        lines, size, end = list[bytes](), 0, position
        for event in events:
            end += 1
            line = self._line(event, now)
            if line is not None:
                lines.append(line)
                size += len(line)
                if size >= _CHUNK_BYTES:
                    break
        if len(self._chunks) >= _KEPT:
            self._chunks.clear()
        made = self._chunks[position, header] = Chunk(b"".join(lines), end, self._encoder.header)
        return made

    def _line(self, event: CacheEvent, now: float) -> bytes | None:
        """What is to be seen of an event: objects come into and leave the selection."""
        stored = event.new or event.old
        if stored is None or not stored.key.startswith(self._chosen.prefix):
            return None
        was = event.old is not None and self._chosen.matches(event.old)
        if event.new is not None and self._chosen.matches(event.new):
            return self._encoder.event(event, "MODIFIED" if was else "ADDED", event.new, now)
        return self._encoder.event(event, "DELETED", event.deleted, now) if was else None


def view_of(
    log: ResourceCache, resource: Resource, chosen: Selection, form: Representation, include_object: str
) -> WatchView:
    """The view that others watch already, or a new one; it lives as long as somebody holds it."""
    key = (chosen, form.is_table, form.is_metadata, include_object)
    view: WatchView | None = log.views.get(key)
    if view is None:
        view = log.views[key] = WatchView(log, chosen, EventEncoder(resource, form, include_object))
    return view
