"""How much the store holds, and the alarm that is on when that is more than its quota.

The size is a function of what can be read: it does not tell what was trimmed yet. Each revision is noted
with what compaction at or above it will free, so that a compaction costs no pass over what it frees.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from raftkube.errors import NoSpace
from raftkube.limits import VERSION_OVERHEAD_BYTES
from raftkube.wire.store import Event, KeyValue, LeaseGrant, Once, Op, Put, Txn

NO_SPACE: Final = (
    "mvcc: database space exceeded, the alarm NOSPACE is on: compact or delete, or raise"
    " --quota-backend-bytes, and then disarm it (raftkube kv alarm disarm)"
)


def version_bytes(kv: KeyValue) -> int:
    """What one version of a key counts, tombstone or not."""
    return len(kv.key) + len(kv.value) + VERSION_OVERHEAD_BYTES


def takes_space(op: Op) -> bool:
    """Whether the quota may refuse it: puts, grants, and transactions that could do either."""
    match op:
        case Put() | LeaseGrant():
            return True
        case Txn():
            return any(takes_space(item) for branch in (op.success, op.failure) for item in branch)
        case Once():
            return takes_space(op.op)
    return False


class Space:
    """The bytes of all versions that a read at or above the compact revision can return.

    `waiting`: of those that no read can return any more and that are not trimmed yet, as far as known.
    """

    __slots__ = ("_first", "_freed", "_gone", "_total", "in_use", "waiting")

    def __init__(self, first: int) -> None:
        self.in_use = 0
        self.waiting = 0
        self._first = first  # the revision that _freed begins with
        self._freed: list[int] = []  # by revision: what compaction at it frees, summed from the beginning
        self._total = 0
        self._gone = 0  # of that sum, what was compacted

    def add(self, events: tuple[Event, ...]) -> None:
        """The next revision has these events."""
        self.grow(events)
        self._freed.append(self._total)

    def put(self, kv: KeyValue, prev: KeyValue | None) -> None:
        """`add` of the event of a lone put."""
        self.in_use += len(kv[0]) + len(kv[1]) + VERSION_OVERHEAD_BYTES
        if prev is not None:
            self._total += len(prev[0]) + len(prev[1]) + VERSION_OVERHEAD_BYTES
        self._freed.append(self._total)

    def end_revision(self) -> None:
        """The next revision has the events that `grow` was told of."""
        self._freed.append(self._total)

    def grow(self, events: Iterable[Event]) -> None:
        """The revision that is being made has these events, too."""
        grown = freed = 0
        for _, kv, prev in events:
            size = len(kv.key) + len(kv.value) + VERSION_OVERHEAD_BYTES
            grown += size
            if not kv.version:  # a tombstone goes with its own revision
                freed += size
            if prev is not None:
                freed += len(prev.key) + len(prev.value) + VERSION_OVERHEAD_BYTES
        self.in_use += grown
        self._total += freed

    def compact(self, revision: int) -> None:
        """The versions that reads at or above `revision` cannot return are gone."""
        count = revision + 1 - self._first
        if count > 0:
            freed = self._freed[count - 1] - self._gone
            del self._freed[:count]
            self._first, self._gone = revision + 1, self._gone + freed
            self.in_use -= freed
            self.waiting += freed


class Alarms:
    """Which alarms are on, by the member that raised them."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on: set[tuple[str, str]] = set()

    def change(self, active: bool, alarm: str, member: str) -> tuple[tuple[str, str], ...]:
        """Raise or disarm; those that changed, in order. Disarming for member "" disarms all of them."""
        if active:
            changed = {(member, alarm)} - self.on
        else:
            changed = {item for item in self.on if item[1] == alarm and member in ("", item[0])}
        self.on ^= changed
        return tuple(sorted(changed))

    def check(self, op: Op) -> None:
        """Raises NoSpace: an alarm is on, and `op` takes space."""
        if self.on and takes_space(op):
            raise NoSpace(NO_SPACE)
