"""What the store should do, as slowly and plainly as it can be said: a list of writes, replayed.

Shares with the state machine the messages and nothing else. A transaction works on the list and is
undone by taking the old list back; every read replays all writes up to its revision.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

from raftkube.wire import store as w

COMPARE = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
FIELD = {"version": 4, "create": 2, "mod": 3, "value": 1, "lease": 5}


class Refused(Exception):
    """(name of the error's class, its fields)"""

    def __init__(self, name: str, **fields: Any) -> None:
        super().__init__(name, fields)
        self.answer = (name, fields)


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
            tuple(self.at(self.compacted).values()),
            self.events_at(self.compacted),
            tuple(write for write in self.writes if write[0] > self.compacted),
        )

    # What operations do.

    def apply(self, op: w.Op) -> Any:
        """The result, or (error class, fields) with nothing changed."""
        before = copy.deepcopy(self.__dict__)
        try:
            result = self.do(op)
        except Refused as refused:
            self.__dict__ = before
            return refused.answer
        if self.changed():
            self.revision += 1
        return result

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
        self.write(op.key, op.value, op.lease)
        return w.PutResult(self.now(), prev if op.prev_kv else None)

    def DeleteRange(self, op: w.DeleteRange) -> w.DeleteRangeResult:
        doomed = tuple(kv for kv in self.newest().values() if in_range(kv.key, op.key, op.range_end))
        for kv in doomed:
            self.write(kv.key, None)
        return w.DeleteRangeResult(self.now(), len(doomed), doomed if op.prev_kv else ())

    def Range(self, op: w.Range) -> w.RangeResult:
        if op.revision > self.revision:
            raise Refused("FutureRevision", revision=self.revision)
        if op.revision and op.revision < self.compacted:
            raise Refused("Compacted", compact_revision=self.compacted)
        state = self.at(op.revision) if op.revision else self.newest()
        kvs = [kv for kv in state.values() if in_range(kv.key, op.key, op.range_end)]
        count = len(kvs)
        if op.count_only:
            return w.RangeResult(self.now(), (), count, False)
        if op.limit:
            kvs = kvs[: op.limit]
        if op.keys_only:
            kvs = [kv._replace(value=b"") for kv in kvs]
        return w.RangeResult(self.now(), tuple(kvs), count, len(kvs) < count)

    def Txn(self, op: w.Txn) -> w.TxnResult:
        for branch in (op.success, op.failure):
            self.refuse_duplicates(branch)
        succeeded = all(self.holds(compare) for compare in op.compares)
        responses = [self.do(item) for item in (op.success if succeeded else op.failure)]
        return w.TxnResult(self.now(), succeeded, tuple(responses))

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
            raise Refused("Compacted", compact_revision=self.compacted)
        if op.revision > self.revision:
            raise Refused("FutureRevision", revision=self.revision)
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
        self.leases[op.lease] = (op.ttl_s, 0)
        return w.LeaseResult(self.now(), op.lease, op.ttl_s)

    def LeaseKeepAlive(self, op: w.LeaseKeepAlive) -> w.LeaseResult:
        ttl_s, renewal = self.need(op.lease)
        self.leases[op.lease] = (ttl_s, renewal + 1)
        return w.LeaseResult(self.now(), op.lease, ttl_s, renewal + 1)

    def end(self, lease: int) -> None:
        for key in self.lease_keys(lease):
            self.write(key, None)
        del self.leases[lease]

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
