"""What the driver asks of the state machine that it feeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from raftkube.types import LogIndex


class Machine(Protocol):
    """A deterministic state machine. It never raises for a bad operation: errors are results."""

    def apply(self, index: LogIndex, payload: bytes) -> list[Any]:
        """Apply one log entry: `payload` is a msgpack array of encoded operations (bytes); one result
        each, in their order."""
        ...

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call, in chunks (at most 1 MiB each is kind to the peers). What is applied
        while the iterator is consumed must not show in it."""
        ...

    def restore(self, chunks: Iterator[bytes]) -> None:
        """Replace the state by what `snapshot` gave, chunk by chunk as it gave it. Raises: the chunks make
        no state; the member stops."""
        ...
