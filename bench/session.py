"""What a load generator needs of a protocol to watch, without any socket: bytes in, bytes and counts out.

There is one for raftkube (`ours`) and one for etcd (`etcd`); the generator treats them alike. Those that put
and get are in `kv`.
"""

from __future__ import annotations

from typing import Protocol


class WatchSession(Protocol):
    """One connection that carries `watches` watches of one prefix."""

    def hello(self) -> bytes:
        """What is sent first, the watches' creation included."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Take what arrived, verify it, return what must be sent now.

        Raises Violation: an event missing, doubled, out of order, or other than was written.
        """
        ...

    @property
    def created(self) -> int:
        """Watches that the server has confirmed."""
        ...

    @property
    def delivered(self) -> int:
        """Events delivered so far, over all watches."""
        ...

    @property
    def reached(self) -> int:
        """The revision that every watch of this connection has reached; 0 before the first event."""
        ...


class Expected:
    """What was written: revision -> (key, value). Chunks of events that were verified once are known by
    their bytes, so that the same chunk on another connection costs one dictionary lookup."""

    def __init__(self) -> None:
        self.written: dict[int, tuple[bytes, bytes]] = {}
        self.chunks: dict[bytes, tuple[int, int]] = {}
        # Events may arrive before the answer to their write: checked at the end.
        self.seen: dict[int, tuple[bytes, bytes]] = {}

    def remember(self, chunk: bytes, events: list[tuple[int, bytes, bytes]]) -> tuple[int, int]:
        """Note a chunk's events (revision, key, value); its first and last revision."""
        for revision, key, value in events:
            before = self.seen.setdefault(revision, (key, value))
            if before != (key, value):
                raise_violation(f"revision {revision} came with two contents")
        span = (events[0][0], events[-1][0])
        if [revision for revision, _, _ in events] != list(range(span[0], span[1] + 1)):
            raise_violation(f"events {span[0]}..{span[1]} are not one a revision, in order")
        if len(self.chunks) > 4096:
            self.chunks.clear()
        self.chunks[chunk] = span
        return span

    def check(self) -> None:
        """Every write was seen as it was written, and nothing else was. Raises Violation."""
        if self.seen != self.written:
            missing = [
                revision for revision in self.written if self.written[revision] != self.seen.get(revision)
            ]
            extra = [revision for revision in self.seen if revision not in self.written]
            raise_violation(
                f"{len(missing)} writes never came or came wrong, {len(extra)} events were not written"
            )


def raise_violation(text: str) -> None:
    """Raise it; an expression where a statement cannot stand."""
    from bench.errors import Violation

    raise Violation(text)
