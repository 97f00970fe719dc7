"""The MVCC state machine: operations in, results and events out.

Theory (etcd v3's, https://etcd.io/docs/v3.5/learning/data_model/). There is one revision for the whole
store; it rises by one with each operation that changes a key, however many keys it changes. A key is a
list of versions, each with the revision that wrote it, so that a read at an old revision is a lookup.
Compaction forgets what no read at or above the compact revision needs.

Invariants:
* A result and the next state depend on the state and the operation alone.
* An operation that answers with a StoreError has changed nothing, but that its session may hold the error.
* A numbered write (Once) is applied at most once; each time it is answered, it is with the same result.
* Every revision above the first has at least one event, and each key at most one per revision.
* A lease's keys are exactly the existing keys whose newest version names it.
* What waits to be trimmed shows in no result, event, snapshot or hash.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Final, assert_never
from weakref import WeakSet

from raftkube.errors import InvariantViolation, StoreError
from raftkube.store.core.branches import check_branch, check_grant, kept_by
from raftkube.store.core.compare import holds
from raftkube.store.core.history import EventBatch, EventHistory
from raftkube.store.core.keyspace import Keyspace, tombstone
from raftkube.store.core.leases import Lease, LeaseTable, LeaseView, lease_not_found
from raftkube.store.core.ranges import check_revision, compacted, read_range
from raftkube.store.core.restore import all_at_once, build_image
from raftkube.store.core.sessions import SessionTable, SessionView
from raftkube.store.core.snapshot import Pin, hash_slices, hash_state, snapshot_chunks
from raftkube.store.core.space import Alarms, Space
from raftkube.store.core.validation import validate
from raftkube.types import Revision
from raftkube.wire.store import (
    DELETE_EVENT,
    PUT_EVENT,
    Alarm,
    AlarmList,
    AlarmResult,
    Compact,
    CompactResult,
    Compare,
    DeleteRange,
    DeleteRangeResult,
    Event,
    LeaseExpire,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseList,
    LeaseListResult,
    LeaseResult,
    LeaseRevoke,
    LeaseTimeToLive,
    Once,
    Op,
    Put,
    PutResult,
    Range,
    RangeResult,
    Result,
    SessionClose,
    SessionOpen,
    SessionResult,
    Txn,
    TxnResult,
)

FIRST_REVISION: Final = 1  # of an empty store, as in etcd: the first change makes revision 2

# After a compaction each operation trims this many old revisions, so that none pays for all.
_TRIM_REVISIONS_PER_APPLY: Final = 8

ReadOp = Range | LeaseTimeToLive | LeaseList | AlarmList

_new: Final = tuple.__new__  # a NamedTuple's own constructor is a Python call more


class StateMachine:
    """The state of one member. Not safe for use from several threads."""

    __slots__ = (
        "_alarms",
        "_compact_revision",
        "_events",
        "_history",
        "_keyspace",
        "_leases",
        "_pins",
        "_revision",
        "_sessions",
        "_space",
        "_trimmed",
        "_untaken",
    )

    def __init__(self) -> None:
        self._revision = FIRST_REVISION
        self._compact_revision = 0
        self._keyspace = Keyspace()
        self._leases = LeaseTable()
        self._sessions = SessionTable()
        self._alarms = Alarms()
        self._space = Space(FIRST_REVISION + 1)
        self._history = EventHistory(FIRST_REVISION + 1)
        self._events: list[Event] = []  # of the operation that is being applied
        self._untaken: list[tuple[int, tuple[Event, ...]]] = []
        self._trimmed = 0  # versions are trimmed up to this revision; follows the compact revision
        self._pins: WeakSet[Pin] = WeakSet()

    @property
    def revision(self) -> Revision:
        """Of the last change; 1 for an empty store."""
        return Revision(self._revision)

    @property
    def compact_revision(self) -> Revision:
        """The oldest revision that can be read; 0 if there was no compaction."""
        return Revision(self._compact_revision)

    @property
    def db_size_in_use(self) -> int:
        """Bytes of all versions that can be read, by `Space`'s count; the quota is on this."""
        return self._space.in_use

    @property
    def db_size(self) -> int:
        """As `db_size_in_use`, with what is compacted and waits to be trimmed, as far as known."""
        return self._space.in_use + self._space.waiting

    @property
    def alarms(self) -> tuple[tuple[str, str], ...]:
        """(member, alarm) of all that are on."""
        return tuple(sorted(self._alarms.on)) if self._alarms.on else ()

    def apply(self, op: Op) -> Result | StoreError:
        """Carry out `op`. A client's mistake comes back as a StoreError value, having changed nothing.

        Raises InvariantViolation: a bug; the node must stop.
        """
        if type(op) is Once:
            return self._apply_once(op)
        try:
            validate(op)
            if self._alarms.on:
                self._alarms.check(op)
            result = self._evaluate(op)
        except StoreError as error:
            if self._events:
                raise InvariantViolation(f"{type(op).__name__} failed halfway") from error
            return error
        if self._events:
            self._commit_events()
        if self._trimmed < self._compact_revision:
            self.trim(_TRIM_REVISIONS_PER_APPLY)
        return result

    def put(self, key: bytes, value: bytes, lease: int, prev_kv: bool) -> Result | StoreError:
        """`apply` of a Put that is valid, without detours: most of what a store does."""
        if self._alarms.on or (lease and lease not in self._leases):
            return self.apply(Put(key, value, lease, prev_kv))  # which says what is wrong
        self._revision = revision = self._revision + 1
        kv, prev = self._keyspace.put(key, value, lease, revision)
        held = 0 if prev is None else prev.lease
        if held != lease:
            self._leases.move(key, held, lease)
        events = (_new(Event, (PUT_EVENT, kv, prev)),)
        self._history.append(events)
        self._space.put(kv, prev)
        self._untaken.append((revision, events))
        if self._trimmed < self._compact_revision:
            self.trim(_TRIM_REVISIONS_PER_APPLY)
        result: PutResult = _new(PutResult, (revision, prev if prev_kv else None))
        return result

    def read(self, op: ReadOp) -> Result:
        """Answer a read from the state as it is.

        Raises InvalidRequest, RequestTooLarge, Compacted, FutureRevision, LeaseNotFound.
        """
        validate(op)
        match op:
            case Range():
                return self._range(op)
            case LeaseTimeToLive():
                return self._time_to_live(op)
            case LeaseList():
                return LeaseListResult(self._revision, tuple(self._leases.ids()))
            case AlarmList():
                return AlarmResult(self._revision, self.alarms)
            case _:
                assert_never(op)

    def take_events(self) -> list[tuple[int, tuple[Event, ...]]]:
        """What was applied since the last call, by revision; deletes and puts carry `prev_kv`."""
        taken, self._untaken = self._untaken, []
        return taken

    def events_between(self, after: Revision, key: bytes, range_end: bytes, limit: int) -> EventBatch:
        """Past events of a key or range, of revisions above `after`; about `limit`, fewer if they are large.

        Looks at a bounded number of revisions: call again with the batch's `through` until that is
        the store's revision. Raises Compacted if `after` + 1 lies below the compact revision (as etcd's
        watch: the compact revision itself can still be watched from).
        """
        if after + 1 < self._compact_revision:
            raise compacted(after + 1, self._compact_revision)
        return self._history.select(after, key, range_end, limit)

    def leases(self) -> Iterator[LeaseView]:
        """Every lease, in order of ids."""
        return self._leases.views()

    def repeats(self, op: Op) -> bool:
        """Whether `op` would not be applied now: its session has its result already, or is not known."""
        return type(op) is Once and self._sessions.holds(op)

    def oldest_sessions(self, *, beyond: int) -> list[SessionView]:
        """Those that are more than `beyond`: the ones that were not used for longest."""
        return self._sessions.oldest(len(self._sessions) - beyond)

    def state_hash(self) -> int:
        """64 bits that are equal for equal states, on every member and in every process: takes a pass
        over everything that a snapshot holds."""
        return hash_state(self._pin(), self._keyspace, self._history)

    def hash_slices(self) -> Generator[None, None, int]:
        """As `state_hash`, of the state at the first slice; operations may be applied between them. The
        generator returns the hash."""
        pin = self._pin()
        self._pins.add(pin)
        return hash_slices(pin, self._keyspace, self._history)

    def snapshot(self) -> Iterator[bytes]:
        """The state of this moment in chunks; operations may be applied between them.

        Compacted versions stay in memory until the iterator is exhausted or dropped.
        """
        pin = self._pin()
        self._pins.add(pin)
        return snapshot_chunks(pin, self._keyspace, self._history)

    @classmethod
    def restore(cls, chunks: Iterable[bytes]) -> StateMachine:
        """The machine whose `snapshot` gave these bytes, however they are cut.

        Raises InvariantViolation on any damage.
        """
        return all_at_once(cls.restoring(chunks))

    @classmethod
    def restoring(cls, chunks: Iterable[bytes]) -> Generator[None, None, StateMachine]:
        """As `restore`, in slices of a few milliseconds: the generator returns the machine."""
        image = yield from build_image(chunks)
        machine = cls()
        machine._revision = image.revision
        machine._compact_revision = machine._trimmed = image.compact_revision
        machine._keyspace, machine._history, machine._leases = image.keyspace, image.history, image.leases
        machine._sessions, machine._alarms, machine._space = image.sessions, image.alarms, image.space
        return machine

    def rebased(self, revision: int) -> StateMachine:
        """This state's keys and leases as those of another cluster, at `revision`, which lies above all of
        this one's: nothing before it can be read or watched. The two share what they hold: use one of them.
        """
        if revision <= self._revision:
            raise InvariantViolation(f"revision {revision} is not above {self._revision}")
        machine = StateMachine()
        machine._revision = machine._compact_revision = machine._trimmed = revision
        machine._history = EventHistory(revision + 1)
        machine._keyspace, machine._leases = self._keyspace, self._leases
        return machine

    def trim(self, revisions_max: int) -> bool:
        """Free up to so many compacted revisions; True if none is left. It shows in memory only.

        `apply` does this by and by; an idle node may call it too.
        """
        target = self._compact_revision
        if self._trimmed < target and not self._pins:
            end = min(target, max(self._trimmed, self._history.first - 1) + revisions_max)
            for revision in range(self._trimmed + 1, end + 1):
                for event in self._history.at(revision):
                    self._keyspace.compact(event.kv.key, target)
            self._trimmed = end
            self._history.drop_below(end)
            if end == target:
                self._space.waiting = 0
        return self._trimmed == target

    def discard(self, keys_max: int) -> bool:
        """Free a part of a state that nobody uses any more; True once nothing large is left.

        To drop the last reference would free all of it in one step. A snapshot that is still being taken
        of it keeps it whole.
        """
        if self._pins:
            return False
        self._history.drop_below(min(self._history.first + keys_max, self._revision + 1))
        return self._keyspace.discard(keys_max) and not len(self._history)

    def _apply_once(self, op: Once) -> Result | StoreError:
        try:
            validate(op)
            recalled = self._sessions.recall(op)
        except StoreError as error:
            return error
        if recalled is not None:
            return recalled
        result = self.apply(op.op)
        self._sessions.keep(op, result)
        return result

    def _evaluate(self, op: Op) -> Result:
        match op:
            case Put():
                return self._put(op)
            case Txn():
                return self._txn(op)
            case DeleteRange():
                return self._delete_range(op)
            case LeaseKeepAlive():
                return self._keep_alive(op)
            case LeaseGrant():
                return self._grant(op)
            case LeaseRevoke():
                self._end_lease(op.lease, self._leases.get(op.lease))
                return LeaseResult(self._view_revision(), op.lease, 0)
            case LeaseExpire():
                return self._expire(op)
            case Compact():
                return self._compact(op)
            case Range() | LeaseTimeToLive() | LeaseList() | AlarmList():
                return self.read(op)
            case SessionOpen():
                self._sessions.open(op.session)
                return SessionResult(self._revision, op.session)
            case SessionClose():
                stays = self._sessions.close(op.session, op.highest)
                return SessionResult(self._revision, op.session, stays)
            case Alarm():
                return AlarmResult(self._revision, self._alarms.change(*op))
            case Once():
                raise InvariantViolation("a numbered write stands in another operation")
            case _:
                assert_never(op)

    def _commit_events(self) -> None:
        self._revision += 1
        events = tuple(self._events)
        self._events = []
        self._history.append(events)
        self._space.add(events)
        self._untaken.append((self._revision, events))

    def _view_revision(self) -> int:
        """What a result is stamped with: an operation that has changed something sees its own revision."""
        return self._revision + 1 if self._events else self._revision

    def _put(self, op: Put) -> PutResult:
        key, value, lease, want_prev, ignore_value, ignore_lease = op
        if lease and lease not in self._leases:
            raise lease_not_found(lease)
        if ignore_value or ignore_lease:
            kept = kept_by(op, self._keyspace)
            value, lease = kept.value if ignore_value else value, kept.lease if ignore_lease else lease
        revision = self._revision + 1
        kv, prev = self._keyspace.put(key, value, lease, revision)
        self._leases.move(key, prev.lease if prev else 0, lease)
        self._events.append(Event(PUT_EVENT, kv, prev))
        return PutResult(revision, prev if want_prev else None)

    def _delete_range(self, op: DeleteRange) -> DeleteRangeResult:
        doomed = self._keyspace.select(op.key, op.range_end, 0).kvs
        for kv in doomed:
            self._leases.move(kv.key, kv.lease, 0)
            self._delete(kv.key)
        prev_kvs = tuple(doomed) if op.prev_kv else ()
        return DeleteRangeResult(self._view_revision(), len(doomed), prev_kvs)

    def _delete(self, key: bytes) -> None:
        revision = self._revision + 1
        prev = self._keyspace.delete(key, revision)
        self._events.append(Event(DELETE_EVENT, tombstone(key, revision), prev))

    def _range(self, op: Range) -> RangeResult:
        self._check_revision(op.revision)
        return read_range(self._keyspace, op, self._view_revision())

    def _txn(self, op: Txn) -> TxnResult:
        succeeded = all(self._holds(compare) for compare in op.compares)
        branch = op.success if succeeded else op.failure
        self._check_branch(branch)
        responses = tuple([self._evaluate(item) for item in branch])
        return TxnResult(self._view_revision(), succeeded, responses)

    def _holds(self, compare: Compare) -> bool:
        return holds(compare, self._keyspace.select(compare.key, compare.range_end, 0).kvs)

    def _check_branch(self, branch: tuple[Op, ...]) -> None:
        check_branch(branch, self._keyspace, self._leases, self._check_revision)

    def _compact(self, op: Compact) -> CompactResult:
        if op.revision <= self._compact_revision:
            raise compacted(op.revision, self._compact_revision)
        self._check_revision(op.revision)
        self._compact_revision = op.revision
        self._space.compact(op.revision)
        return CompactResult(self._revision)

    def _grant(self, op: LeaseGrant) -> LeaseResult:
        check_grant(op, self._leases)
        lease = self._leases.add(op.lease, op.ttl_s)
        return LeaseResult(self._view_revision(), op.lease, op.ttl_s, lease.renewal)

    def _keep_alive(self, op: LeaseKeepAlive) -> LeaseResult:
        lease = self._leases.get(op.lease)
        lease.renewal += 1
        return LeaseResult(self._view_revision(), op.lease, lease.ttl_s, lease.renewal)

    def _expire(self, op: LeaseExpire) -> LeaseResult:
        """`ttl_s` 0 in the answer: the lease is gone; above 0: it was renewed meanwhile and lives on."""
        lease = self._leases.find(op.lease)
        if lease is not None and lease.renewal != op.renewal:
            return LeaseResult(self._revision, op.lease, lease.ttl_s, lease.renewal)
        if lease is not None:
            self._end_lease(op.lease, lease)
        return LeaseResult(self._view_revision(), op.lease, 0, op.renewal)

    def _end_lease(self, lease: int, held: Lease) -> None:
        """Delete its keys, all in one revision and in key order, and forget it."""
        for key in sorted(held.keys):
            self._delete(key)
        self._leases.remove(lease)

    def _time_to_live(self, op: LeaseTimeToLive) -> LeaseResult:
        lease = self._leases.get(op.lease)
        keys = tuple(sorted(lease.keys)) if op.keys else ()
        return LeaseResult(self._revision, op.lease, lease.ttl_s, lease.renewal, keys=keys)

    def _check_revision(self, revision: int) -> None:
        check_revision(revision, newest=self._revision, oldest=self._compact_revision)

    def _pin(self) -> Pin:
        leases = [(view.lease, view.ttl_s, view.renewal) for view in self._leases.views()]
        edge = self._history.at(self._compact_revision)
        sessions = tuple(self._sessions.copies())
        first = self._leases.first_renewal
        return Pin(self._revision, self._compact_revision, leases, edge, sessions, self.alarms, first)
