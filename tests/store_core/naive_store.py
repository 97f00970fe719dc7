"""What the store should do, as slowly and plainly as it can be said: a list of writes, replayed.

Shares with the state machine the messages and nothing else. A transaction works on the list and is
undone by taking the old list back; every read replays all writes up to its revision.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

from raftkube.limits import SESSION_WINDOW, VERSION_OVERHEAD_BYTES
from raftkube.wire import store as w

COMPARE = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
FIELD = {"version": 4, "create": 2, "mod": 3, "value": 1, "lease": 5}


def takes_space(op: w.Op) -> bool:
    if isinstance(op, w.Txn):
        return any(takes_space(item) for item in op.success + op.failure)
    return isinstance(op, w.Put | w.LeaseGrant)


class Refused(Exception):
    """(name of the error's class, its fields); `about` is what else its sentence tells."""

    def __init__(self, name: str, about: Any = None, **fields: Any) -> None:
        super().__init__(name, fields)
        self.answer = (name, fields)
        self.about = about


def in_range(key: bytes, start: bytes, end: bytes) -> bool:
    if end == b"":
        return key == start
    return key >= start and (end == b"\x00" or key < end)


class NaiveStore:
    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.writes: list[tuple[int, bytes, bytes | None, int]] = []  # revision, key, value, lease
        self.leases: dict[int, tuple[int, int]] = {}  # id -> (ttl_s, renewal)
        self.first_renewal = 0
        # id -> (acknowledged below, highest sequence, {sequence: (answer, about)}), the least recently used
        # first; nothing is forgotten for its size
        self.sessions: dict[int, tuple[int, int, dict[int, Any]]] = {}
        self.about: Any = None  # of the last error
        self.alarms: set[tuple[str, str]] = set()

    # What can be seen.

    def at(self, revision: int) -> dict[bytes, w.KeyValue]:
        """Every key that exists at `revision`, in key order."""
        alive: dict[bytes, w.KeyValue] = {}
        for written, key, value, lease in self.writes:
            if written > revision:
                break
            if value is None:
                del alive[key]
                continue
            old = alive.get(key)
            create, version = (old.create_revision, old.version + 1) if old else (written, 1)
            alive[key] = w.KeyValue(key, value, create, written, version, lease)
        return dict(sorted(alive.items()))

    def newest(self) -> dict[bytes, w.KeyValue]:
        return self.at(self.revision + 1)

    def events_at(self, revision: int) -> tuple[w.Event, ...]:
        before, after = self.at(revision - 1), self.at(revision)
        events = []
        for written, key, value, _ in self.writes:
            if written == revision and value is None:
                gone = w.KeyValue(key, b"", 0, revision, 0, 0)
                events.append(w.Event(w.DELETE_EVENT, gone, before[key]))
            elif written == revision:
                events.append(w.Event(w.PUT_EVENT, after[key], before.get(key)))
        return tuple(events)

    def events_between(self, after: int, key: bytes, end: bytes) -> list[tuple[int, tuple[w.Event, ...]]]:
        if after + 1 < self.compacted:
            raise Refused("Compacted", compact_revision=self.compacted)
        found = []
        for revision in range(after + 1, self.revision + 1):
            events = tuple(e for e in self.events_at(revision) if in_range(e.kv.key, key, end))
            if events:
                found.append((revision, events))
        return found

    def lease_keys(self, lease: int) -> tuple[bytes, ...]:
        return tuple(kv.key for kv in self.newest().values() if kv.lease == lease)

    def visible(self) -> Any:
        """Equal for two states if and only if nobody can tell them apart."""
        return (
            self.revision,
            self.compacted,
            tuple(sorted(self.leases.items())),
            self.first_renewal,
            repr(list(self.sessions.items())),
            tuple(sorted(self.alarms)),
            tuple(self.at(self.compacted).values()),
            self.events_at(self.compacted),
            tuple(write for write in self.writes if write[0] > self.compacted),
        )

    def size(self) -> int:
        """Of all versions that a read at or above the compact revision can return, tombstones too."""
        begin = self.at(self.compacted).values()
        early = sum(len(kv.key) + len(kv.value) + VERSION_OVERHEAD_BYTES for kv in begin)
        late = [write for write in self.writes if write[0] > self.compacted]
        return early + sum(len(key) + len(value or b"") + VERSION_OVERHEAD_BYTES for _, key, value, _ in late)

    # What operations do.

    def apply(self, op: w.Op) -> Any:
        """The result, or (error class, fields) with nothing changed."""
        if isinstance(op, w.Once):
            try:
                self.refuse_what_never_succeeds(op.op)
            except Refused as refused:
                return refused.answer
            return self.once(op)
        before = copy.deepcopy(self.__dict__)
        try:
            self.about = None
            self.refuse_what_never_succeeds(op)
            if self.alarms and takes_space(op):
                raise Refused("NoSpace")
            result = self.do(op)
        except Refused as refused:
            self.__dict__ = before
            self.about = refused.about
            return refused.answer
        if self.changed():
            self.revision += 1
        return result

    def once(self, op: w.Once) -> Any:
        """The answer that the sequence got the first time."""
        fields = {"session": op.session, "sequence": op.sequence}
        if op.session not in self.sessions:
            return "SessionUnknown", fields
        below, highest, answers = self.sessions.pop(op.session)
        below = max(below, op.acknowledged_below)
        answers = {sequence: answer for sequence, answer in answers.items() if sequence >= below}
        self.sessions[op.session] = (below, highest, answers)
        if op.sequence < below:
            return "SessionUnknown", fields
        if op.sequence not in answers:
            if op.sequence >= below + SESSION_WINDOW:
                return "InvalidRequest", {"field": "sequence"}
            answer = self.apply(op.op)
            answers = answers | {op.sequence: (answer, self.about)}
            self.sessions[op.session] = (below, max(highest, op.sequence), answers)
        return answers[op.sequence][0]

    def changed(self) -> bool:
        return any(written > self.revision for written, *_ in self.writes)

    def now(self) -> int:
        return self.revision + self.changed()

    def do(self, op: w.Op) -> Any:
        return getattr(self, type(op).__name__)(op)

    def write(self, key: bytes, value: bytes | None, lease: int = 0) -> None:
        self.writes.append((self.revision + 1, key, value, lease))

    def Put(self, op: w.Put) -> w.PutResult:
        if op.lease and op.lease not in self.leases:
            raise Refused("LeaseNotFound", lease=op.lease)
        prev = self.newest().get(op.key)
        if (op.ignore_value or op.ignore_lease) and prev is None:
            raise Refused("KeyNotFound", key=op.key)
        value = prev.value if prev and op.ignore_value else op.value
        self.write(op.key, value, prev.lease if prev and op.ignore_lease else op.lease)
        return w.PutResult(self.now(), prev if op.prev_kv else None)

    def DeleteRange(self, op: w.DeleteRange) -> w.DeleteRangeResult:
        doomed = tuple(kv for kv in self.newest().values() if in_range(kv.key, op.key, op.range_end))
        for kv in doomed:
            self.write(kv.key, None)
        return w.DeleteRangeResult(self.now(), len(doomed), doomed if op.prev_kv else ())

    def Range(self, op: w.Range) -> w.RangeResult:
        if op.revision > self.revision:
            raise Refused("FutureRevision", op.revision, revision=self.revision)
        if op.revision and op.revision < self.compacted:
            raise Refused("Compacted", op.revision, compact_revision=self.compacted)
        state = self.at(op.revision) if op.revision else self.newest()
        kvs = [kv for kv in state.values() if in_range(kv.key, op.key, op.range_end)]
        count = len(kvs)
        if op.count_only:
            return w.RangeResult(self.now(), (), count, False)
        field = {"": 0, "key": 0, "value": 1, "create": 2, "mod": 3, "version": 4}[op.sort_target]
        kvs.sort(key=lambda kv: kv[field], reverse=op.sort_order == "descend")
        for lowest, highest, which in (
            (op.min_create_revision, op.max_create_revision, 2),
            (op.min_mod_revision, op.max_mod_revision, 3),
        ):
            kvs = [kv for kv in kvs if lowest <= kv[which] <= (highest or kv[which])]
        more = 0 < op.limit < len(kvs)
        if op.limit:
            kvs = kvs[: op.limit]
        if op.keys_only:
            kvs = [kv._replace(value=b"") for kv in kvs]
        return w.RangeResult(self.now(), tuple(kvs), count, more)

    def Txn(self, op: w.Txn) -> w.TxnResult:
        succeeded = all(self.holds(compare) for compare in op.compares)
        responses = [self.do(item) for item in (op.success if succeeded else op.failure)]
        return w.TxnResult(self.now(), succeeded, tuple(responses))

    def refuse_what_never_succeeds(self, op: w.Op) -> None:
        if isinstance(op, w.Put) and op.ignore_value and op.value:
            raise Refused("InvalidRequest", "kept", field="value")
        if isinstance(op, w.Put) and op.ignore_lease and op.lease:
            raise Refused("InvalidRequest", "kept", field="lease")
        for branch in (op.success, op.failure) if isinstance(op, w.Txn) else ():
            for item in branch:
                self.refuse_what_never_succeeds(item)
            self.refuse_duplicates(branch)

    def refuse_duplicates(self, branch: tuple[w.Op, ...]) -> None:
        deletes = [op for op in branch if isinstance(op, w.DeleteRange)]
        puts = [op.key for op in branch if isinstance(op, w.Put)]
        for position, key in enumerate(puts):
            if key in puts[:position] or any(in_range(key, d.key, d.range_end) for d in deletes):
                raise Refused("DuplicateKey", key=key)

    def holds(self, compare: w.Compare) -> bool:
        kvs = [kv for kv in self.newest().values() if in_range(kv.key, compare.key, compare.range_end)]
        if not kvs and compare.target == "value":
            return False
        fields = [kv[FIELD[compare.target]] for kv in kvs] or [0]
        return all(COMPARE[compare.result](value, compare.operand) for value in fields)

    def Compact(self, op: w.Compact) -> w.CompactResult:
        if op.revision <= self.compacted:
            raise Refused("Compacted", op.revision, compact_revision=self.compacted)
        if op.revision > self.revision:
            raise Refused("FutureRevision", op.revision, revision=self.revision)
        self.compacted = op.revision
        return w.CompactResult(self.revision)

    def need(self, lease: int) -> tuple[int, int]:
        if lease not in self.leases:
            raise Refused("LeaseNotFound", lease=lease)
        return self.leases[lease]

    def LeaseGrant(self, op: w.LeaseGrant) -> w.LeaseResult:
        if op.lease == 0:
            raise Refused("InvalidRequest", field="lease")
        if op.lease in self.leases:
            raise Refused("LeaseExists", lease=op.lease)
        self.leases[op.lease] = (op.ttl_s, self.first_renewal)
        return w.LeaseResult(self.now(), op.lease, op.ttl_s, self.first_renewal)

    def LeaseKeepAlive(self, op: w.LeaseKeepAlive) -> w.LeaseResult:
        ttl_s, renewal = self.need(op.lease)
        self.leases[op.lease] = (ttl_s, renewal + 1)
        return w.LeaseResult(self.now(), op.lease, ttl_s, renewal + 1)

    def end(self, lease: int) -> None:
        for key in self.lease_keys(lease):
            self.write(key, None)
        self.first_renewal = max(self.first_renewal, self.leases.pop(lease)[1] + 1)

    def LeaseRevoke(self, op: w.LeaseRevoke) -> w.LeaseResult:
        self.need(op.lease)
        self.end(op.lease)
        return w.LeaseResult(self.now(), op.lease, 0)

    def LeaseExpire(self, op: w.LeaseExpire) -> w.LeaseResult:
        if op.lease in self.leases:
            ttl_s, renewal = self.leases[op.lease]
            if renewal != op.renewal:
                return w.LeaseResult(self.revision, op.lease, ttl_s, renewal)
            self.end(op.lease)
        return w.LeaseResult(self.now(), op.lease, 0, op.renewal)

    def LeaseTimeToLive(self, op: w.LeaseTimeToLive) -> w.LeaseResult:
        ttl_s, renewal = self.need(op.lease)
        keys = self.lease_keys(op.lease) if op.keys else ()
        return w.LeaseResult(self.revision, op.lease, ttl_s, renewal, keys=keys)

    def LeaseList(self, op: w.LeaseList) -> w.LeaseListResult:
        return w.LeaseListResult(self.revision, tuple(sorted(self.leases)))

    def SessionOpen(self, op: w.SessionOpen) -> w.SessionResult:
        if op.session == 0 or op.session in self.sessions:
            raise Refused("InvalidRequest", field="session")
        self.sessions[op.session] = (1, 0, {})
        return w.SessionResult(self.revision, op.session)

    def SessionClose(self, op: w.SessionClose) -> w.SessionResult:
        _, used, _ = self.sessions.get(op.session, (1, 0, {}))
        if op.highest >= 0 and used > op.highest:
            return w.SessionResult(self.revision, op.session, True)
        self.sessions.pop(op.session, None)
        return w.SessionResult(self.revision, op.session, False)

    def Alarm(self, op: w.Alarm) -> w.AlarmResult:
        before = set(self.alarms)
        if op.active:
            self.alarms.add((op.member, op.alarm))
        else:
            self.alarms = {each for each in before if op.member not in ("", each[0])}
        return w.AlarmResult(self.revision, tuple(sorted(before ^ self.alarms)))

    def AlarmList(self, op: w.AlarmList) -> w.AlarmResult:
        return w.AlarmResult(self.revision, tuple(sorted(self.alarms)))
