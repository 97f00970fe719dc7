"""What the driver asks of the state machine that it feeds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

from raftkube.types import LogIndex


class Machine(Protocol):
    """A deterministic state machine. It never raises for a bad operation: errors are results."""

    def apply(self, index: LogIndex, payload: bytes, operations: list[Any] | None = None) -> list[Any]:
        """Apply one log entry: `payload` is a msgpack array of operations; one result each, in their order.
        `operations`: what unpacking it would give, where this member knows that already."""
        ...

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call, in chunks (at most 1 MiB each is kind to the peers). What is applied
        while the iterator is consumed must not show in it."""
        ...

    def restoring(self, chunks: Iterator[bytes]) -> Generator[None, None, Callable[[], None]]:
        """Build the state that `snapshot` gave, chunk by chunk as it gave it, beside the present one: each
        slice takes a few milliseconds, and entries may be applied between them. Takes all chunks. Returns
        the step that puts the new state in the old one's place, which takes no time and never fails.

        Raises InvariantViolation: the chunks make no state.
        """
        ...
