"""A Hypothesis state machine that holds the state machine against the naive store, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from naive_store import NaiveStore, Refused

from raftkube.errors import StoreError
from raftkube.store.core import LeaseView, StateMachine, is_plain_put
from raftkube.types import LeaseId, Revision
from raftkube.wire import store as w

KEYS = [b"a", b"b", b"ba", b"c", b"\xff"]
keys = st.sampled_from(KEYS)
range_ends = st.sampled_from([b"", b"", b"\x00", b"\x00", b"\x00", w.prefix_end(b"b"), b"b", b"c", b"\xff"])
values = st.sampled_from([b"", b"x", b"y"])
lease_ids = st.integers(1, 3)
kept = st.builds(
    w.Put, keys, st.sampled_from([b"", b"", b"x"]), st.sampled_from([0, 0, 1]), st.booleans(),
    st.booleans(), st.booleans(),
)  # fmt: skip
# Functions, not the classes: Hypothesis would draw the fields that are left out, too.
plain_puts = st.builds(
    lambda *fields: w.Put(*fields), keys, values, st.sampled_from([0, 0, 1, 2, 3]), st.booleans()
)
puts = plain_puts | plain_puts | plain_puts | kept
deletes = st.builds(w.DeleteRange, keys, st.just(b"") | st.just(b"") | range_ends, st.booleans())
# A revision is drawn as a distance from the newest, and made absolute by `absolute`.
distances = st.sampled_from([0, 0, 0, 0, -1, 1, 2, 3, 4, 6, 9, 14])
rarely = st.sampled_from([False, False, False, True])
bounds = st.sampled_from([0, 0, 0, 2, 3, 5, 9])
plain_ranges = st.builds(
    lambda *fields: w.Range(*fields), keys, range_ends, distances, st.integers(0, 3), rarely, rarely
)
arranged_ranges = st.builds(
    w.Range, keys, range_ends, st.sampled_from([0, 0, 0, 1, 3]), st.integers(0, 3), rarely, rarely,
    st.sampled_from(["", "ascend", "descend"]),
    st.sampled_from(["", "key", "version", "create", "mod", "value"]),
    bounds, bounds, bounds, bounds,
)  # fmt: skip
ranges = plain_ranges | arranged_ranges
grants = st.builds(w.LeaseGrant, st.integers(0, 3), st.integers(1, 9))
keep_alives = st.builds(w.LeaseKeepAlive, lease_ids)
number_compares = st.builds(
    w.Compare, keys, st.sampled_from(["version", "create", "mod", "lease"]),
    st.sampled_from(["=", "!=", "<", ">"]), st.integers(0, 4), range_ends,
)  # fmt: skip
value_compares = st.builds(
    w.Compare, keys, st.just("value"), st.sampled_from(["=", "!=", "<", ">"]), values, range_ends
)  # fmt: skip
mixed = st.lists(puts | puts | deletes | ranges | grants | keep_alives, max_size=4)
several_puts = st.lists(puts, min_size=2, max_size=4, unique_by=lambda put: put.key)
branches = (mixed | several_puts).map(tuple)
txns = st.builds(
    w.Txn, st.lists(number_compares | value_compares, max_size=2).map(tuple), branches, branches
)  # fmt: skip
lease_ops = (
    grants
    | keep_alives
    | st.builds(w.LeaseRevoke, lease_ids)
    | st.builds(w.LeaseExpire, lease_ids, st.integers(0, 2))
)
session_ids = st.integers(1, 2)
session_ops = st.builds(w.SessionOpen, st.integers(0, 2)) | st.builds(
    w.SessionClose, session_ids, st.integers(-1, 6)
)
numbered = puts | puts | deletes | txns | lease_ops | st.builds(w.Compact, st.integers(1, 30))
members = st.sampled_from(["", "store-1", "store-2"])
alarms = st.builds(w.Alarm, st.booleans(), st.just("NOSPACE"), members)
reads = (
    ranges
    | st.just(w.AlarmList())
    | st.builds(w.LeaseTimeToLive, lease_ids, st.booleans())
    | st.just(w.LeaseList())
)


def absolute(op: Any, revision: int) -> Any:
    """`op` with each range's distance turned into a revision: 0 stays 0 (the newest)."""
    match op:
        case w.Range():
            return op._replace(revision=op.revision and max(1, revision + 1 - op.revision))
        case w.Once():
            return op._replace(op=absolute(op.op, revision))
        case w.Txn():
            return op._replace(
                success=tuple(absolute(item, revision) for item in op.success),
                failure=tuple(absolute(item, revision) for item in op.failure),
            )
    return op


def plain(answer: Any) -> Any:
    """An error as the naive store writes it."""
    return (type(answer).__name__, answer.fields) if isinstance(answer, StoreError) else answer


class StoreModelMachine(RuleBasedStateMachine):
    """`machine` is the one under test; `twin` gets the same operations but trims at once and never goes
    through a snapshot: what waits in memory must not show. Its puts go the short way."""

    def __init__(self) -> None:
        super().__init__()
        self.model = NaiveStore()
        self.machine = StateMachine()
        self.twin = StateMachine()
        self.streams: list[tuple[int, list[bytes], Iterator[bytes]]] = []
        self.hash_of: dict[Any, int] = {}
        self.state_of: dict[int, Any] = {}

    def apply(self, op: w.Op) -> None:
        before = self.model.revision
        op = absolute(op, before)
        expected = self.model.apply(op)
        assert plain(self.machine.apply(op)) == expected
        wire = w.op_to_wire(op)
        applied_short = self.twin.put(*wire[1:]) if is_plain_put(wire) else self.twin.apply(op)
        assert plain(applied_short) == expected
        self.twin.trim(1_000)
        applied = [(before + 1, self.model.events_at(before + 1))] if self.model.revision > before else []
        assert self.machine.take_events() == applied
        assert self.twin.take_events() == applied

    @initialize(holders=st.dictionaries(keys, st.integers(0, 3), max_size=len(KEYS)))
    def begin_with_keys_on_leases(self, holders: dict[bytes, int]) -> None:
        for lease in sorted(set(holders.values()) - {0}):
            self.apply(w.LeaseGrant(lease, 5))
        for key, lease in holders.items():
            self.apply(w.Put(key, b"x", lease))

    @rule(op=puts | deletes)
    def write(self, op: w.Op) -> None:
        self.apply(op)

    @rule(ops=st.lists(puts | puts | puts | deletes, min_size=2, max_size=5))
    def write_several(self, ops: list[w.Op]) -> None:
        for op in ops:
            self.apply(op)

    @rule(op=txns)
    def transact(self, op: w.Op) -> None:
        self.apply(op)

    @rule(op=lease_ops)
    def lease(self, op: w.Op) -> None:
        self.apply(op)

    @rule(op=session_ops)
    def open_or_close_a_session(self, op: w.Op) -> None:
        self.apply(op)

    @rule(
        op=numbered,
        session=session_ids,
        ahead=st.integers(-3, 5),
        behind=st.integers(0, 5),
        times=st.integers(1, 3),
    )
    def write_once(self, op: Any, session: int, ahead: int, behind: int, times: int) -> None:
        """New sequences, gaps, repeats of old ones with another operation, and what was acknowledged."""
        if isinstance(op, w.LeaseExpire):  # the store's own, never numbered
            return
        if session not in self.model.sessions:
            self.apply(w.SessionOpen(session))
        sequence = max(1, self.model.sessions[session][1] + ahead)
        once = w.Once(session, sequence, max(0, sequence - behind), absolute(op, self.model.revision))
        for _ in range(times):
            assert self.machine.repeats(once) == self.model_repeats(once)
            self.apply(once)

    def model_repeats(self, op: w.Once) -> bool:
        below, _, answers = self.model.sessions.get(op.session, (op.sequence + 1, 0, {}))
        return op.sequence < below or op.sequence in answers

    @rule(op=st.builds(w.Once, st.integers(0, 3), st.integers(0, 3), st.integers(0, 1), plain_puts))
    def write_once_in_any_session(self, op: w.Once) -> None:
        if op.session >= 1 and op.sequence >= max(1, op.acknowledged_below):
            self.apply(op)

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data())
    def retry_after_a_restart(self, data: st.DataObject) -> None:
        """The very case: the answer was lost, and the member that applied it is another by now."""
        session = data.draw(st.sampled_from(sorted(self.model.sessions)))
        below, _, answers = self.model.sessions[session]
        self.machine = StateMachine.restore(self.machine.snapshot())
        for sequence in sorted(answers):
            self.apply(w.Once(session, sequence, below, w.Put(b"a", b"again")))

    @rule(op=alarms, disarm=st.sampled_from([True, True, False]))
    def raise_or_disarm_an_alarm(self, op: w.Alarm, disarm: bool) -> None:
        self.apply(op)
        if disarm:  # most of the time, so that most puts go through
            self.apply(w.Alarm(False, "NOSPACE"))

    @rule(distance=distances)
    def compact(self, distance: int) -> None:
        self.apply(w.Compact(max(1, self.model.revision - distance)))

    @rule(op=reads)
    def read_in_log(self, op: w.Op) -> None:
        self.apply(op)

    @rule(op=reads)
    def read(self, op: Any) -> None:
        op = absolute(op, self.model.revision)
        try:
            answer: Any = self.machine.read(op)
        except StoreError as error:
            answer = plain(error)
        assert answer == self.model.apply(op)

    @rule(distance=distances, key=keys, end=range_ends, limit=st.integers(1, 3))
    def watch_from_the_past(self, distance: int, key: bytes, end: bytes, limit: int) -> None:
        after = max(0, self.model.revision - distance)
        try:
            found: Any = self.events(after, key, end, limit)
        except StoreError as error:
            found = plain(error)
        try:
            expected: Any = self.model.events_between(after, key, end)
        except Refused as refused:
            expected = refused.answer
        assert found == expected

    def events(self, after: int, key: bytes, end: bytes, limit: int) -> list[Any]:
        found: list[Any] = []
        batch = self.machine.events_between(Revision(after), key, end, limit)
        while True:
            found += batch.revisions
            if batch.through >= self.machine.revision:
                return found
            seen = batch.through
            batch = self.machine.events_between(seen, key, end, limit)
            assert batch.through > seen, "no progress"

    @rule()
    def restart_from_a_snapshot(self) -> None:
        self.machine = StateMachine.restore(self.machine.snapshot())

    @precondition(lambda self: len(self.streams) < 3)
    @rule(chunks=st.integers(0, 2))
    def start_a_snapshot(self, chunks: int) -> None:
        stream = self.machine.snapshot()
        begun = [next(stream) for _ in range(chunks)]
        self.streams.append((self.machine.state_hash(), begun, stream))

    @precondition(lambda self: self.streams)
    @rule()
    def finish_a_snapshot(self) -> None:
        state_hash, begun, stream = self.streams.pop(0)
        assert StateMachine.restore([*begun, *stream]).state_hash() == state_hash

    @invariant()
    def same_revisions(self) -> None:
        assert self.machine.revision == self.model.revision
        assert self.machine.compact_revision == self.model.compacted

    @invariant()
    def same_size(self) -> None:
        assert self.machine.db_size_in_use == self.model.size()
        assert self.twin.db_size == self.twin.db_size_in_use == self.model.size()
        assert self.machine.db_size >= self.machine.db_size_in_use

    @invariant()
    def same_sessions_and_alarms(self) -> None:
        assert self.machine.alarms == tuple(sorted(self.model.alarms))
        expected = [(session, highest) for session, (_, highest, _) in self.model.sessions.items()]
        assert self.machine.oldest_sessions(beyond=0) == expected

    @invariant()
    def same_leases(self) -> None:
        assert list(self.machine.leases()) == [
            LeaseView(LeaseId(lease), ttl_s, renewal, len(self.model.lease_keys(lease)))
            for lease, (ttl_s, renewal) in sorted(self.model.leases.items())
        ]

    @invariant()
    def hashes_tell_states_apart(self) -> None:
        state_hash, state = self.machine.state_hash(), self.model.visible()
        assert self.twin.state_hash() == state_hash
        assert self.hash_of.setdefault(state, state_hash) == state_hash
        assert self.state_of.setdefault(state_hash, state) == state
