"""Mutants of the state machine: keys, versions, transactions, compaction, numbered writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chaos.mutants.mutant import Mutant
from raftkube.store.core.compare import holds
from raftkube.store.core.history import EventHistory
from raftkube.store.core.keyspace import Keyspace
from raftkube.store.core.machine import StateMachine
from raftkube.store.core.sessions import SessionTable
from raftkube.wire.store import DeleteRange, DeleteRangeResult, Put, PutResult, TxnResult

Function = Callable[..., Any]

# Mistakes at the edge of what is common: a run without faults may well not meet them.
_MANY_KEYS: Final = 3
_LARGE_TXN: Final = 8


def _compare_before(original: Function) -> Function:
    def compare_holds(self: StateMachine, compare: Any) -> bool:
        before = max(self._revision - 1, self._compact_revision)
        return holds(compare, self._keyspace.select_at(compare.key, compare.range_end, 0, before).kvs)

    return compare_holds


def _miss_the_last_key(original: Function) -> Function:
    def delete_range(self: StateMachine, op: DeleteRange) -> DeleteRangeResult:
        kvs = self._keyspace.select(op.key, op.range_end, 0).kvs
        if len(kvs) <= _MANY_KEYS:
            return original(self, op)  # type: ignore[no-any-return]
        result = original(self, op._replace(range_end=kvs[-1].key))
        return result._replace(deleted=len(kvs))  # type: ignore[no-any-return]

    return delete_range


def _drop_the_last_put(original: Function) -> Function:
    def txn(self: StateMachine, op: Any) -> TxnResult:
        last = op.success[-1] if op.success else None
        if len(op.success) < _LARGE_TXN or not isinstance(last, Put):
            return original(self, op)  # type: ignore[no-any-return]
        result = original(self, op._replace(success=op.success[:-1]))
        if not result.succeeded:
            return result  # type: ignore[no-any-return]
        answer = PutResult(self._view_revision(), self._keyspace.get(last.key))
        return result._replace(responses=(*result.responses, answer))  # type: ignore[no-any-return]

    return txn


def _version_goes_on(original: Function) -> Function:
    """Only where compaction has been at the key: the oldest version left is not its first."""

    def put(self: Keyspace, key: bytes, value: bytes, lease: int, revision: int) -> Any:
        dead = self._dead.get(key, ())
        compacted = bool(dead) and dead[0].version > 1
        kv, prev = original(self, key, value, lease, revision)
        if compacted:
            kv = kv._replace(version=2)
            self._live[key][-1] = kv
        return kv, prev

    return put


def _no_start_check(original: Function) -> Function:
    def events_between(self: StateMachine, after: int, key: bytes, range_end: bytes, limit: int) -> Any:
        return self._history.select(after, key, range_end, limit)

    return events_between


def _drop_too_far(original: Function) -> Function:
    def drop_below(self: EventHistory, revision: int) -> None:
        original(self, min(revision + 1, self.first + len(self)))

    return drop_below


def _compact_too_far(original: Function) -> Function:
    def compact(self: StateMachine, op: Any) -> Any:
        result = original(self, op)
        self._history.drop_below(min(op.revision + 1, self._revision))
        return result

    return compact


def _compact_the_living(original: Function) -> Function:
    def compact(self: Keyspace, key: bytes, compact_revision: int) -> None:
        original(self, key, compact_revision)
        record = self._live.get(key)
        if record is not None and len(record) == 1 and record[0].mod_revision == compact_revision:
            del self._live[key]

    return compact


def _keep_no_result(original: Function) -> Function:
    return lambda self, op, result: None


def _keep_few_results(original: Function) -> Function:
    """Once the client's next write is there, the one before is taken for answered."""

    def recall(self: SessionTable, op: Any) -> Any:
        found = original(self, op)
        held = self._sessions[op.session].results
        for sequence in [each for each in held if each < op.sequence]:
            del held[sequence]
        return found

    return recall


_COMPACTING: Final = {"server": {"history_s": 15.0, "history_revisions_max": 40}}
_NUMBERED: Final = {"hosts": 3, "numbered": True}

MUTANTS: Final = (
    Mutant("compare-one-before", "a transaction compares with the state one revision before",
           ((StateMachine, "_holds", _compare_before),), "partition",
           load={"workload": {"keys": 3, "think_s": 0.1, "clients": 3}}),
    Mutant("delete-misses-last-key", "a delete of more than three keys leaves the last of them",
           ((StateMachine, "_delete_range", _miss_the_last_key),), "link",
           load={"workload": {"keys": 12, "think_s": 0.1, "clients": 3}}),
    Mutant("txn-drops-last", "a transaction of eight changes does not carry out the last",
           ((StateMachine, "_txn", _drop_the_last_put),), "link",
           load={"workload": {"keys": 12, "think_s": 0.1, "clients": 3}}),
    Mutant("version-goes-on", "a key deleted and put again after a compaction begins at version 2",
           ((Keyspace, "put", _version_goes_on),), "kill,link", settings=_COMPACTING),
    Mutant("watch-below-compaction", "a watch may start below the compact revision",
           ((StateMachine, "events_between", _no_start_check),), "link,kill", settings=_COMPACTING,
           load={"workload": {"watches": 2, "compact_every_s": 8.0}}),
    Mutant("event-lost-at-compaction", "the event right behind a compaction is dropped with those before it",
           ((StateMachine, "_compact", _compact_too_far), (EventHistory, "drop_below", _drop_too_far)),
           "kill,link", settings=_COMPACTING, load={"workload": {"watches": 2}}),
    Mutant("compaction-eats-a-key", "compaction at the very revision of a key's only version removes the key",
           ((Keyspace, "compact", _compact_the_living),), "link,kill", settings=_COMPACTING),
    Mutant("retry-applied-twice", "a numbered write's result is not kept: sent again, it is applied again",
           ((SessionTable, "keep", _keep_no_result),), "partition,link,kill", load=_NUMBERED),
    Mutant("results-forgotten-early", "a numbered write's result is forgotten when the next one comes",
           ((SessionTable, "recall", _keep_few_results),), "partition,link,kill", load=_NUMBERED),
)  # fmt: skip
