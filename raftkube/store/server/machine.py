"""What the log drives: the state machine, with everything that must happen in the same step as apply."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

from raftkube.errors import StoreError
from raftkube.store.core import StateMachine, is_plain_put
from raftkube.store.core.restore import all_at_once
from raftkube.store.server.activity import Activity
from raftkube.types import LogIndex
from raftkube.wire.frames import unpack
from raftkube.wire.store import LeaseResult, Once, Result, TxnResult, op_from_wire

_CHUNK_BYTES: Final = 1024 * 1024
Revisions = list[tuple[Any, tuple[Any, ...]]]


class StoreMachine:
    """Applies committed operations and tells the hub and the lease clock, with no await between."""

    def __init__(self) -> None:
        self.core = StateMachine()
        self.activity = Activity()
        self.applied_index = 0
        self._discarded: list[StateMachine] = []
        self._on_events: Callable[[Revisions], None] = lambda revisions: None
        self._on_lease: Callable[[LeaseResult], None] = lambda result: None
        self._on_restore: Callable[[], None] = lambda: None

    def observe(
        self,
        *,
        events: Callable[[Revisions], None],
        lease: Callable[[LeaseResult], None],
        restored: Callable[[], None],
    ) -> None:
        """Call these from now on: with each apply's events, each lease result, after each restore."""
        self._on_events, self._on_lease, self._on_restore = events, lease, restored

    def apply(self, index: LogIndex, payload: bytes, operations: list[Any] | None = None) -> list[Any]:
        """Apply one log entry, a msgpack array of operations; one result or error value each. `operations`
        is what unpacking it gives, where that is known.

        Raises InvariantViolation: the node must stop.
        """
        wires = unpack(payload) if operations is None else operations
        core_put, apply_one = self.core.put, self._apply_one
        results = [
            core_put(wire[1], wire[2], wire[3], wire[4]) if is_plain_put(wire) else apply_one(wire)
            for wire in wires
        ]
        self.applied_index = index
        self.activity.note_applied(results)
        events = self.core.take_events()
        if events:
            self._on_events(events)
        return results

    def _apply_one(self, wire: Any) -> Result | StoreError:
        try:
            op = op_from_wire(wire)
        except StoreError as error:
            return error  # the same on every member
        repeated = self.core.repeats(op)
        result = self.core.apply(op)
        if repeated:
            return result  # what it tells of has happened before, and may be over
        asked: Any = op.op if isinstance(op, Once) else op
        if isinstance(result, LeaseResult):
            self._on_lease(result)
            self.activity.note_lease(asked, result)
        elif isinstance(result, TxnResult):
            self.activity.note_applied(result.responses)
            branch = asked.success if result.succeeded else asked.failure
            for item, part in zip(branch, result.responses, strict=True):
                if isinstance(part, LeaseResult):
                    self._on_lease(part)
                    self.activity.note_lease(item, part)
        return result

    def snapshot(self) -> Iterator[bytes]:
        """The state of this moment, in chunks of at most 1 MiB."""
        return _cut(self.core.snapshot())

    def restoring(self, chunks: Iterator[bytes]) -> Generator[None, None, Callable[[], None]]:
        """Build a snapshot's state beside the present one, in slices; returns the step that swaps them.

        Raises InvariantViolation on damage.
        """
        core = yield from StateMachine.restoring(chunks)

        def swap() -> None:
            self._discarded.append(self.core)
            self.core = core
            self._on_restore()

        return swap

    def restore(self, chunks: Iterator[bytes]) -> None:
        """Replace the state by a snapshot's in one go. Raises InvariantViolation on damage."""
        all_at_once(self.restoring(chunks))()

    def discard(self, keys_max: int) -> bool:
        """Free a part of the states that snapshots replaced; True once nothing is left of them."""
        if self._discarded and self._discarded[0].discard(keys_max):
            self._discarded.pop(0)
        return not self._discarded


def _cut(sections: Iterator[bytes]) -> Iterator[bytes]:
    """A section is as large as the largest revision; readers of snapshots rely on a bound of chunks."""
    for section in sections:
        for begin in range(0, len(section), _CHUNK_BYTES):
            yield section[begin : begin + _CHUNK_BYTES]
