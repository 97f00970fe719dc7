"""The state machine does what the naive store does; and a state machine with a planted bug does not."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import naive_store
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as hypothesis_seed
from hypothesis.stateful import RULE_MARKER, run_state_machine_as_test
from store_model_machine import StoreModelMachine

from raftkube.errors import StoreError
from raftkube.store.core import keyspace as keyspace_module
from raftkube.store.core import machine as machine_module
from raftkube.store.core import ranges as ranges_module
from raftkube.store.core import restore as restore_module
from raftkube.store.core import sessions as sessions_module
from raftkube.store.core import snapshot as snapshot_module
from raftkube.store.core import space as space_module
from raftkube.store.core.history import EventHistory
from raftkube.store.core.keyspace import Keyspace
from raftkube.store.core.leases import LeaseTable
from raftkube.store.core.machine import StateMachine
from raftkube.store.core.sessions import Session, SessionTable
from raftkube.store.core.space import Space, version_bytes
from raftkube.wire.store import Txn

FIRED_MIN = 1_000
ROUNDS_MAX = 12
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]


@pytest.fixture(autouse=True)
def _trim_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that most steps meet a compaction that is half trimmed."""
    monkeypatch.setattr(machine_module, "_TRIM_REVISIONS_PER_APPLY", 1)
    monkeypatch.setattr(sessions_module, "SESSION_WINDOW", 4)
    monkeypatch.setattr(naive_store, "SESSION_WINDOW", 4)


def test_agrees_with_the_naive_store() -> None:
    run_state_machine_as_test(
        StoreModelMachine,
        settings=settings(
            max_examples=300,
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=SLOW,
        ),
    )


class Counting(StoreModelMachine):
    """Notes how often each rule ran to its end."""

    fired: ClassVar[Counter[str]] = Counter()


for _rule in StoreModelMachine.setup_state().rules:

    def _run(self: Any, *, _right: Any = _rule.function, **drawn: Any) -> None:
        _right(self, **drawn)
        Counting.fired[_right.__name__] += 1

    functools.update_wrapper(_run, _rule.function)
    setattr(_run, RULE_MARKER, replace(_rule, function=_run))
    setattr(Counting, _rule.function.__name__, _run)


@pytest.mark.long
def test_every_rule_fires_a_thousand_times(capsys: pytest.CaptureFixture[str]) -> None:
    """And there is no difference in all those steps; the table says how often each rule took part."""
    rules = {rule.function.__name__ for rule in StoreModelMachine.setup_state().rules}
    Counting.fired.clear()
    for number in range(ROUNDS_MAX):
        run_state_machine_as_test(
            hypothesis_seed(number)(Counting),
            settings=settings(
                max_examples=300,
                stateful_step_count=50,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=SLOW,
            ),
        )
        if min(Counting.fired[rule] for rule in rules) >= FIRED_MIN:
            break
    with capsys.disabled():
        print(f"\n{'rule':<32}  fired")
        for rule, times in Counting.fired.most_common():
            print(f"{rule:<32} {times:>6}")
    assert rules == set(Counting.fired)
    assert min(Counting.fired.values()) >= FIRED_MIN


Plant = Callable[[pytest.MonkeyPatch], None]


def move_only_attaches(patch: pytest.MonkeyPatch) -> None:
    def move(self: LeaseTable, key: bytes, old: int, new: int) -> None:
        if new:
            self._leases[new].keys.add(key)

    patch.setattr(LeaseTable, "move", move)


def compact_drops_one_revision_too_many(patch: pytest.MonkeyPatch) -> None:
    right = Keyspace.compact
    patch.setattr(Keyspace, "compact", lambda self, key, revision: right(self, key, revision + 1))


def past_reads_are_one_revision_late(patch: pytest.MonkeyPatch) -> None:
    right = keyspace_module.version_at
    patch.setattr(keyspace_module, "version_at", lambda record, revision: right(record, revision + 1))


def expiry_ignores_renewals(patch: pytest.MonkeyPatch) -> None:
    right = StateMachine._expire

    def expire(self: StateMachine, op: Any) -> Any:
        lease = self._leases.find(op.lease)
        return right(self, op if lease is None else op._replace(renewal=lease.renewal))

    patch.setattr(StateMachine, "_expire", expire)


def each_put_of_a_txn_takes_a_revision(patch: pytest.MonkeyPatch) -> None:
    right = StateMachine._put

    def put(self: StateMachine, op: Any) -> Any:
        if self._events:
            self._commit_events()
        return right(self, op)

    patch.setattr(StateMachine, "_put", put)


def txn_is_not_checked_beforehand(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StateMachine, "_check_branch", lambda self, branch: None)


def snapshot_forgets_deleted_keys(patch: pytest.MonkeyPatch) -> None:
    right = Keyspace.records_after

    def records_after(self: Keyspace, key: bytes, count: int) -> Any:
        return [(name, record) for name, record in right(self, key, count) if record[-1].version]

    patch.setattr(Keyspace, "records_after", records_after)


def trimming_ignores_running_snapshots(patch: pytest.MonkeyPatch) -> None:
    right = StateMachine.trim

    def trim(self: StateMachine, revisions_max: int) -> bool:
        pins, self._pins = self._pins, type(self._pins)()
        done = right(self, revisions_max)
        self._pins = pins
        return done

    patch.setattr(StateMachine, "trim", trim)


def count_stops_at_the_limit(patch: pytest.MonkeyPatch) -> None:
    right = Keyspace.select

    def select(self: Keyspace, key: bytes, range_end: bytes, limit: int) -> Any:
        selected = right(self, key, range_end, limit)
        return selected._replace(total=len(selected.kvs))

    patch.setattr(Keyspace, "select", select)


def lease_keys_go_in_reverse_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine_module, "sorted", lambda items: sorted(items, reverse=True), raising=False)


def hash_ignores_renewals(patch: pytest.MonkeyPatch) -> None:
    right = snapshot_module.hash_state

    def hash_state(pin: Any, *rest: Any) -> int:
        leases = [(lease, ttl_s, 0) for lease, ttl_s, _ in pin.leases]
        return right(snapshot_module.Pin(pin.revision, pin.compact_revision, leases, pin.edge), *rest)

    patch.setattr(machine_module, "hash_state", hash_state)


def watch_loses_the_first_past_revision(patch: pytest.MonkeyPatch) -> None:
    right = EventHistory.select
    patch.setattr(EventHistory, "select", lambda self, after, *rest: right(self, after + 1, *rest))


def recreated_key_keeps_its_create_revision(patch: pytest.MonkeyPatch) -> None:
    right = Keyspace.put

    def put(self: Keyspace, key: bytes, value: bytes, lease: int, revision: int) -> Any:
        dead = self._dead.get(key)
        kv, prev = right(self, key, value, lease, revision)
        if dead is not None and len(dead) > 2:
            kv = dead[-1] = kv._replace(create_revision=dead[0].create_revision or revision)
        return kv, prev

    patch.setattr(Keyspace, "put", put)


def a_result_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """When the next write of the session is applied, not when the client has acknowledged it."""
    right = Session.keep

    def keep(self: Session, sequence: int, packed: bytes) -> None:
        self.results.clear()
        right(self, sequence, packed)

    patch.setattr(Session, "keep", keep)


def a_retry_is_applied_twice(patch: pytest.MonkeyPatch) -> None:
    right = SessionTable.recall

    def recall(self: SessionTable, op: Any) -> Any:
        right(self, op)

    patch.setattr(SessionTable, "recall", recall)


def what_was_acknowledged_is_applied_again(patch: pytest.MonkeyPatch) -> None:
    def acknowledge(self: Session, below: int) -> None:
        for sequence in [sequence for sequence in self.results if sequence < below]:
            del self.results[sequence]

    patch.setattr(Session, "acknowledge", acknowledge)


def errors_are_not_held(patch: pytest.MonkeyPatch) -> None:
    right = SessionTable.keep

    def keep(self: SessionTable, op: Any, result: Any) -> None:
        if not isinstance(result, StoreError):
            right(self, op, result)

    patch.setattr(SessionTable, "keep", keep)


def snapshot_drops_the_sessions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SessionTable, "copies", lambda self: iter(()))


def snapshot_forgets_what_was_acknowledged(patch: pytest.MonkeyPatch) -> None:
    right = SessionTable.load
    patch.setattr(SessionTable, "load", lambda self, copy: right(self, copy._replace(acknowledged_below=1)))


def a_used_session_is_evicted(patch: pytest.MonkeyPatch) -> None:
    right = SessionTable.close
    patch.setattr(SessionTable, "close", lambda self, session, highest: right(self, session, -1))


def quota_counts_what_a_put_replaced_never_as_freed(patch: pytest.MonkeyPatch) -> None:
    right = Space.grow
    patch.setattr(
        Space, "grow", lambda self, events: right(self, [event._replace(prev_kv=None) for event in events])
    )


def quota_miscounts_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(restore_module, "version_bytes", lambda kv: 0 if kv.version == 1 else version_bytes(kv))


def the_alarm_lets_transactions_through(patch: pytest.MonkeyPatch) -> None:
    right = space_module.takes_space
    patch.setattr(space_module, "takes_space", lambda op: not isinstance(op, Txn) and right(op))


def snapshot_drops_the_alarms(patch: pytest.MonkeyPatch) -> None:
    right = machine_module.Pin
    patch.setattr(machine_module, "Pin", lambda *fields: right(*fields[:5]))


def a_sorted_read_is_cut_before_it_is_sorted(patch: pytest.MonkeyPatch) -> None:
    right = ranges_module.arrange
    patch.setattr(ranges_module, "arrange", lambda op, kvs: right(op, kvs[: op.limit or None]))


def ignore_lease_detaches_the_key(patch: pytest.MonkeyPatch) -> None:
    right = machine_module.kept_by
    patch.setattr(machine_module, "kept_by", lambda *fields: right(*fields)._replace(lease=0))


MUTANTS: list[Plant] = [
    move_only_attaches,
    compact_drops_one_revision_too_many,
    past_reads_are_one_revision_late,
    expiry_ignores_renewals,
    each_put_of_a_txn_takes_a_revision,
    txn_is_not_checked_beforehand,
    snapshot_forgets_deleted_keys,
    trimming_ignores_running_snapshots,
    count_stops_at_the_limit,
    lease_keys_go_in_reverse_order,
    hash_ignores_renewals,
    watch_loses_the_first_past_revision,
    recreated_key_keeps_its_create_revision,
    a_result_is_forgotten,
    a_retry_is_applied_twice,
    what_was_acknowledged_is_applied_again,
    errors_are_not_held,
    snapshot_drops_the_sessions,
    snapshot_forgets_what_was_acknowledged,
    a_used_session_is_evicted,
    quota_counts_what_a_put_replaced_never_as_freed,
    quota_miscounts_after_a_restart,
    the_alarm_lets_transactions_through,
    snapshot_drops_the_alarms,
    a_sorted_read_is_cut_before_it_is_sorted,
    ignore_lease_detaches_the_key,
]


@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_catches_a_planted_bug(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(Exception) as caught:
        run_state_machine_as_test(
            StoreModelMachine,
            settings=settings(
                max_examples=1_000,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=SLOW,
                report_multiple_bugs=False,
            ),
        )
    assert not isinstance(caught.value, NameError | TypeError), "the mutant itself is broken"
