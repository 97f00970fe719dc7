"""Group commit: what waits is gathered into one log entry; each caller gets its own results from apply.

Operations are msgpack values and come in groups, what one caller proposes at once; a group is never cut. An
entry is the array of its operations, decoded in one go. The leader keeps them beside the entry for its own
apply, which need not decode them again: at one index and term there is only one entry (Raft §5.3).

A group is in one of three places: waiting (not in any log: refusing it is definite), in flight (in
this leader's log: its fate is unknown until its index is applied), or resolved.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from raftkube.errors import (
    DeadlineExpired,
    InvariantViolation,
    LeadershipLost,
    NotLeader,
    Overloaded,
    ProposalTimeout,
    RequestTooLarge,
    StoreError,
)
from raftkube.limits import LOG_ENTRY_BYTES_MAX, LOG_ENTRY_OPERATIONS_MAX
from raftkube.store.raft.counters import OPERATIONS_BUCKETS, Histogram
from raftkube.store.raft.private import REGULAR
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.raft.waiting import Waiter
from raftkube.wire.frames import pack_small

# With so much waiting the next entry does not wait for those before it.
_GATHERED: Final = 64
_GATHERED_BYTES: Final = 256 * 1024
_ENVELOPE_BYTES: Final = 8  # of an entry: msgpack's and ours
_NEVER: Final = float("inf")
_ARRAY: Final = struct.Struct(">BI")  # msgpack's array 32


class Group(NamedTuple):
    """Operations of one caller, and the same packed. `waiter` gets the list of their results.

    `deadline` is the log's; `give_up` the caller's: later they do not enter the log any more.
    """

    operations: list[Any]
    packed: list[bytes]
    size: int
    waiter: Waiter
    deadline: float
    give_up: float


class _Batch(NamedTuple):
    term: int
    groups: list[Group]


class Proposals:
    """The queue in front of the log, and the entries of this leader on their way through it."""

    def __init__(self, settings: RaftSettings) -> None:
        self._timeout_s = settings.proposal_timeout_s
        self._in_flight_max = settings.entries_in_flight_max
        self._operations_max, self._bytes_max = settings.queue_operations_max, settings.queue_bytes_max
        self._waiting: deque[Group] = deque()
        self._waiting_count = self._waiting_bytes = 0
        self._next_give_up = _NEVER  # no group that waits gives up before
        self._in_flight: dict[int, _Batch] = {}
        self._taken: list[Group] = []  # out of the queue, on their way into the log
        self._resolutions: list[tuple[Waiter, Any]] = []
        self.failed = 0
        self.entry_operations = Histogram(OPERATIONS_BUCKETS)
        self.held = False  # nothing may enter the log: leadership is being handed over

    def add(self, operations: list[Any], now: float, give_up: float = _NEVER) -> Waiter:
        """Queue operations that will stand in one entry, and are left alone from now on; the waiter gets
        their results. After `give_up` they do not enter the log any more. Raises Overloaded,
        RequestTooLarge: definite, none is queued."""
        packed = [pack_small(operation) for operation in operations]
        size = sum(map(len, packed))
        if size + _ENVELOPE_BYTES > LOG_ENTRY_BYTES_MAX or len(packed) > LOG_ENTRY_OPERATIONS_MAX:
            raise RequestTooLarge(
                f"{len(packed)} operations of {size} bytes do not fit a log entry",
                bytes=size,
                bytes_max=LOG_ENTRY_BYTES_MAX - _ENVELOPE_BYTES,
            )
        full = self._waiting_count >= self._operations_max
        if full or self._waiting_bytes + size > self._bytes_max:
            raise Overloaded("too many proposals wait for this leader's log", retry_after_s=0.1)
        waiter = Waiter()
        self._waiting.append(Group(operations, packed, size, waiter, now + self._timeout_s, give_up))
        self._next_give_up = min(self._next_give_up, give_up)
        self._waiting_count += len(packed)
        self._waiting_bytes += size
        return waiter

    @property
    def pending(self) -> int:
        """Operations whose fate is not known yet."""
        groups = (group for batch in self._in_flight.values() for group in batch.groups)
        return self._waiting_count + sum([len(group.packed) for group in groups])

    @property
    def queued_bytes(self) -> int:
        """Bytes of the operations that wait for an entry."""
        return self._waiting_bytes

    @property
    def lone(self) -> bool:
        """One group waits, and nothing is on its way."""
        return len(self._waiting) == 1 and not self._in_flight

    @property
    def can_append(self) -> bool:
        """Something waits and the log may take another entry. While one is on its way, what waits gathers:
        an entry costs every member about as much as fifty operations in it do."""
        if not self._waiting or self.held:
            return False
        gathered = self._waiting_count >= _GATHERED or self._waiting_bytes >= _GATHERED_BYTES
        return not self._in_flight or (gathered and len(self._in_flight) < self._in_flight_max)

    def take(self) -> tuple[bytes, list[Group]]:
        """The next entry's command and its groups, which leave the queue."""
        taken: list[Group] = []
        packed: list[bytes] = []
        waiting, room = self._waiting, LOG_ENTRY_BYTES_MAX - _ENVELOPE_BYTES
        while waiting and waiting[0].size <= room:
            if len(packed) + len(waiting[0].packed) > LOG_ENTRY_OPERATIONS_MAX:
                break
            group = self._next()
            room -= group.size
            packed += group.packed
            taken.append(group)
        self._taken = taken
        self.entry_operations.observe(len(packed))
        return b"".join([REGULAR, _ARRAY.pack(0xDD, len(packed)), *packed]), taken

    def _next(self) -> Group:
        """The oldest group that waits, which leaves the queue."""
        group = self._waiting.popleft()
        self._waiting_count -= len(group.packed)
        self._waiting_bytes -= group.size
        return group

    def appended(self, index: int, term: int, groups: list[Group]) -> None:
        """The entry with these groups stands at `index` of the log."""
        self._in_flight[index] = _Batch(term, groups)
        self._taken = []

    def operations(self, index: int, term: int) -> list[Any] | None:
        """Those of the entry (index, term), if this leader appended it and still knows."""
        batch = self._in_flight.get(index)
        if batch is None or batch.term != term:
            return None
        return [operation for group in batch.groups for operation in group.operations]

    def applied(self, index: int, term: int, results: list[Any]) -> None:
        """The entry (index, term) was applied with these results; callers learn at `flush`."""
        batch = self._in_flight.pop(index, None)
        if batch is None:
            return
        if batch.term != term:  # another leader's entry took the slot
            self._fail(batch.groups, LeadershipLost("another leader's entry took this proposal's place"))
            return
        begin = 0
        for group in batch.groups:
            end = begin + len(group.packed)
            self._resolutions.append((group.waiter, results[begin:end]))
            begin = end
        if len(results) != begin:
            raise InvariantViolation(f"apply of entry {index} gave {len(results)} results for {begin}")

    def flush(self) -> None:
        """Wake the callers whose results are known."""
        if self._resolutions:
            resolutions, self._resolutions = self._resolutions, []
            for waiter, results in resolutions:
                waiter.resolve(results)

    def step_down(self, leader: str | None) -> None:
        """This member leads no more: what is in the log is unknown, what waits was never proposed."""
        for batch in self._in_flight.values():
            self._fail(
                batch.groups,
                LeadershipLost("this member lost its leadership before the outcome was known"),
            )
        self._in_flight.clear()
        self._refuse_waiting(lambda: NotLeader("this member does not lead any more", leader=leader))

    def stop(self, refusal: Callable[[], StoreError]) -> None:
        """The member stops: `refusal` for what waits, unknown for all that may stand in a log, also for
        what was applied in a step that did not come to its end."""
        lost = LeadershipLost("this member stopped before the outcome was known")
        for groups in (self._taken, *(batch.groups for batch in self._in_flight.values())):
            self._fail(groups, lost)
        for waiter, _ in self._resolutions:
            waiter.fail(LeadershipLost(lost.message))
        self._in_flight.clear()
        self._taken, self._resolutions = [], []
        self._refuse_waiting(refusal)

    def drop_expired(self, now: float) -> None:
        """Refuse what waits and nobody wants any more; before anything is taken."""
        if self._next_give_up > now:
            return
        waiting, self._waiting = self._waiting, deque()
        self._next_give_up = _NEVER
        for group in waiting:
            if group.give_up > now:
                self._waiting.append(group)
                self._next_give_up = min(self._next_give_up, group.give_up)
                continue
            self._waiting_count -= len(group.packed)
            self._waiting_bytes -= group.size
            group.waiter.fail(DeadlineExpired("the deadline passed before the operation was proposed"))

    def expire(self, now: float) -> None:
        """Fail what is past its deadline: definite while it waits, unknown once it is in the log."""
        while self._waiting and self._waiting[0].deadline <= now:
            self._next().waiter.fail(DeadlineExpired("the proposal waited too long and was never proposed"))
        for batch in self._in_flight.values():
            if batch.groups[0].deadline > now:
                break
            if batch.groups[0].waiter.resolved:
                continue
            self._fail(batch.groups, ProposalTimeout("not known to be committed in time; it may still be"))

    def next_deadline(self) -> float:
        """When `expire` or `drop_expired` has something to do; infinity if never."""
        at = min(self._waiting[0].deadline, self._next_give_up) if self._waiting else _NEVER
        for batch in self._in_flight.values():
            if not batch.groups[0].waiter.resolved:
                return min(at, batch.groups[0].deadline)
        return at

    @staticmethod
    def _fail(groups: list[Group], error: StoreError) -> None:
        for group in groups:
            group.waiter.fail(type(error)(error.message, **error.fields))

    def _refuse_waiting(self, refusal: Callable[[], StoreError]) -> None:
        waiting, self._waiting = self._waiting, deque()
        self._waiting_count = self._waiting_bytes = 0
        for group in waiting:
            group.waiter.fail(refusal())
