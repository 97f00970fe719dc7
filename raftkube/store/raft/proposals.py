"""Group commit: what waits is gathered into one log entry; each caller gets its own result from apply.

An operation is in one of three places: waiting (not in any log: refusing it is definite), in flight (in
this leader's log: its fate is unknown until its index is applied), or resolved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgpack

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

_ENVELOPE_BYTES: Final = 8  # msgpack's and ours, per operation


class _Operation(NamedTuple):
    payload: bytes
    waiter: Waiter
    deadline: float


class _Batch(NamedTuple):
    term: int
    operations: list[_Operation]


class Proposals:
    """The queue in front of the log, and the entries of this leader on their way through it."""

    def __init__(self, settings: RaftSettings) -> None:
        self._timeout_s = settings.proposal_timeout_s
        self._in_flight_max = settings.entries_in_flight_max
        self._operations_max, self._bytes_max = settings.queue_operations_max, settings.queue_bytes_max
        self._waiting: deque[_Operation] = deque()
        self._waiting_bytes = 0
        self._in_flight: dict[int, _Batch] = {}
        self._taken: list[_Operation] = []  # out of the queue, on their way into the log
        self._resolutions: list[tuple[Waiter, Any]] = []
        self.failed = 0
        self.entry_operations = Histogram(OPERATIONS_BUCKETS)
        self.held = False  # nothing may enter the log: leadership is being handed over

    def add(self, payload: bytes, now: float) -> Waiter:
        """Queue one operation. Raises Overloaded, RequestTooLarge: definite, it is not queued."""
        if len(payload) + _ENVELOPE_BYTES > LOG_ENTRY_BYTES_MAX:
            raise RequestTooLarge(
                f"an operation of {len(payload)} bytes does not fit a log entry",
                bytes=len(payload),
                bytes_max=LOG_ENTRY_BYTES_MAX - _ENVELOPE_BYTES,
            )
        full = len(self._waiting) >= self._operations_max
        if full or self._waiting_bytes + len(payload) > self._bytes_max:
            raise Overloaded("too many proposals wait for this leader's log", retry_after_s=0.1)
        waiter = Waiter()
        self._waiting.append(_Operation(payload, waiter, now + self._timeout_s))
        self._waiting_bytes += len(payload)
        return waiter

    @property
    def pending(self) -> int:
        """Operations whose fate is not known yet."""
        return len(self._waiting) + sum([len(batch.operations) for batch in self._in_flight.values()])

    @property
    def queued_bytes(self) -> int:
        """Bytes of the operations that wait for an entry."""
        return self._waiting_bytes

    @property
    def can_append(self) -> bool:
        """Something waits and the log may take another entry."""
        return bool(self._waiting) and not self.held and len(self._in_flight) < self._in_flight_max

    def take(self) -> tuple[bytes, list[_Operation]]:
        """The next entry's command and its operations, which leave the queue."""
        taken: list[_Operation] = []
        waiting, size = self._waiting, 0
        while waiting and len(taken) < LOG_ENTRY_OPERATIONS_MAX:
            size += len(waiting[0].payload) + _ENVELOPE_BYTES
            if size > LOG_ENTRY_BYTES_MAX and taken:
                break
            operation = waiting.popleft()
            self._waiting_bytes -= len(operation.payload)
            taken.append(operation)
        self._taken = taken
        self.entry_operations.observe(len(taken))
        return REGULAR + msgpack.packb([operation.payload for operation in taken]), taken

    def appended(self, index: int, term: int, operations: list[_Operation]) -> None:
        """The entry with these operations stands at `index` of the log."""
        self._in_flight[index] = _Batch(term, operations)
        self._taken = []

    def applied(self, index: int, term: int, results: list[Any]) -> None:
        """The entry (index, term) was applied with these results; callers learn at `flush`."""
        batch = self._in_flight.pop(index, None)
        if batch is None:
            return
        if batch.term != term:  # another leader's entry took the slot
            self._fail(batch.operations, LeadershipLost("another leader's entry took this proposal's place"))
            return
        if len(results) != len(batch.operations):
            raise InvariantViolation(
                f"apply of entry {index} gave {len(results)} results for {len(batch.operations)}"
            )
        for operation, result in zip(batch.operations, results, strict=True):
            self._resolutions.append((operation.waiter, result))

    def flush(self) -> None:
        """Wake the callers whose results are known; call it once the journal is synced."""
        if self._resolutions:
            resolutions, self._resolutions = self._resolutions, []
            for waiter, result in resolutions:
                waiter.resolve(result)

    def step_down(self, leader: str | None) -> None:
        """This member leads no more: what is in the log is unknown, what waits was never proposed."""
        for batch in self._in_flight.values():
            self._fail(
                batch.operations,
                LeadershipLost("this member lost its leadership before the outcome was known"),
            )
        self._in_flight.clear()
        self._refuse_waiting(lambda: NotLeader("this member does not lead any more", leader=leader))

    def stop(self, refusal: Callable[[], StoreError]) -> None:
        """The member stops: `refusal` for what waits, unknown for all that may stand in a log, also for
        what was applied in a step that did not come to its end."""
        lost = LeadershipLost("this member stopped before the outcome was known")
        for operations in (self._taken, *(batch.operations for batch in self._in_flight.values())):
            self._fail(operations, lost)
        for waiter, _ in self._resolutions:
            waiter.fail(LeadershipLost(lost.message))
        self._in_flight.clear()
        self._taken, self._resolutions = [], []
        self._refuse_waiting(refusal)

    def expire(self, now: float) -> None:
        """Fail what is past its deadline: definite while it waits, unknown once it is in the log."""
        while self._waiting and self._waiting[0].deadline <= now:
            operation = self._waiting.popleft()
            self._waiting_bytes -= len(operation.payload)
            self.failed += 1
            operation.waiter.fail(DeadlineExpired("the proposal waited too long and was never proposed"))
        for batch in self._in_flight.values():
            if batch.operations[0].deadline > now:
                break
            if batch.operations[0].waiter.resolved:
                continue
            self._fail(
                batch.operations, ProposalTimeout("not known to be committed in time; it may still be")
            )

    def next_deadline(self) -> float:
        """When `expire` has something to do; infinity if never."""
        at = self._waiting[0].deadline if self._waiting else float("inf")
        for batch in self._in_flight.values():
            if not batch.operations[0].waiter.resolved:
                return min(at, batch.operations[0].deadline)
        return at

    def _fail(self, operations: list[_Operation], error: StoreError) -> None:
        self.failed += len(operations)
        for operation in operations:
            operation.waiter.fail(type(error)(error.message, **error.fields))

    def _refuse_waiting(self, refusal: Callable[[], StoreError]) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        self.failed += len(waiting)
        for operation in waiting:
            operation.waiter.fail(refusal())
