"""Each mend of the guard beside pysyncobj without it: the same messages, the defect there, none here.

One member alone is fed messages by hand; no network, no trio, time moves only when told.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from random import Random
from typing import Any

import msgpack
import pytest
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.journal import MemoryJournal
from pysyncobj.transport import Transport

from chaos.sim.disk import SimDisk
from raftkube.errors import InvariantViolation, LeadershipLost
from raftkube.store.raft import messages as msg
from raftkube.store.raft.membership import Configuration
from raftkube.store.raft.mutants import find
from raftkube.store.raft.private import NO_OP, REGULAR, Core, Member, World
from raftkube.store.raft.replica import Replica
from raftkube.store.raft.settings import RaftSettings

SETTINGS = RaftSettings()
FIVE = ["n2", "n3", "n4", "n5"]


def entry(index: int, term: int, text: bytes = b"x") -> list[Any]:
    return [REGULAR + msgpack.packb([text]), index, term]


class ManualClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class ListMachine:
    def __init__(self) -> None:
        self.operations: list[bytes] = []

    def apply(self, index: int, payload: bytes, operations: Any = None) -> list[Any]:
        operations = msgpack.unpackb(payload)
        self.operations += operations
        return [index] * len(operations)

    def snapshot(self) -> Iterator[bytes]:
        return iter([msgpack.packb(self.operations)])

    def restoring(self, chunks: Iterator[bytes]) -> Generator[None, None, Callable[[], None]]:
        yield
        operations = msgpack.unpackb(b"".join(chunks))
        return lambda: setattr(self, "operations", operations)


class Guarded:
    """A raftkube member; `sent` gathers what leaves it."""

    def __init__(self, others: list[str] = FIVE, settings: RaftSettings = SETTINGS) -> None:
        self.sent: list[tuple[str, list[Any]]] = []
        self.clock, self.machine, self.disk = ManualClock(), ListMachine(), SimDisk(Random(1))
        self.replica = Replica(
            name="n1",
            configuration=Configuration.of_names(["n1", *others]),
            disk=self.disk,
            clock=self.clock,
            rng=Random(1),
            machine=self.machine,
            outlet=self,
            settings=settings,
            mutant=find(None),
            on_role=lambda role: None,
        )
        for name in others:
            self.replica.guard.connection_up(name)

    def send(self, name: str, message: list[Any]) -> None:
        self.sent.append((name, message))

    def receive(self, name: str, *message: Any) -> list[tuple[str, list[Any]]]:
        """Deliver one message; what leaves because of it."""
        self.sent.clear()
        self.replica.deliver(name, [msg.decode(msgpack.packb(list(message)))])
        self.replica.pump()
        return list(self.sent)

    def lead(self) -> int:
        """Win an election by the votes of n2 and n3; the term."""
        self.clock.now += 10
        self.replica.pump()
        for name in ("n2", "n3"):
            self.receive(name, msg.PRE_VOTE_OK, self.replica.guard.prevote._round)
        for name in ("n2", "n3"):
            self.receive(name, msg.VOTE, self.replica.core.term)
        assert self.replica.leading
        return self.replica.core.term

    @property
    def log(self) -> list[tuple[int, int]]:
        return [(index, term) for _, index, term in self.replica.journal[:]]


class _Sink(Transport):
    def __init__(self) -> None:
        super().__init__(None, None, [])
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, node: Any, message: dict[str, Any]) -> bool:
        self.sent.append((node.id, message))
        return True


class Stock:
    """pysyncobj as it is."""

    def __init__(self) -> None:
        self.world, self.transport = World(Random(1)), _Sink()
        self.world.journal, self.world.now = MemoryJournal(), 100.0
        conf = SyncObjConf(autoTick=False, appendEntriesUseBatch=False, pollerType="select")
        with self.world:
            self.core = SyncObj(Member("n1"), [Member(name) for name in FIVE], conf, transport=self.transport)
        for name in FIVE:
            self.transport._onNodeConnected(Member(name))

    def receive(self, name: str, **message: Any) -> None:
        with self.world:
            self.transport._onMessageReceived(Member(name), message)

    def tick(self) -> None:
        with self.world:
            self.core.doTick(0)

    def append(self, term: int, commit: int, prev: tuple[int, int], entries: list[Any]) -> None:
        self.receive(
            "n2", type="append_entries", term=term, commit_index=commit,
            prevLogIdx=prev[0], prevLogTerm=prev[1], entries=entries,
        )  # fmt: skip

    @property
    def log(self) -> list[tuple[int, int]]:
        return [(index, term) for _, index, term in self.world.journal[:]]


# B: the tail goes only where terms conflict.


def test_a_late_heartbeat_erases_nothing() -> None:
    entries = [entry(index, 1) for index in range(2, 7)]
    stock, guarded = Stock(), Guarded()
    stock.append(1, 1, (1, 0), entries)
    stock.append(1, 1, (3, 1), [])  # sent before the entries, arrived after them
    assert stock.log[-1] == (3, 1)  # the defect

    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, entries)
    replies = guarded.receive("n2", msg.APPEND, 1, 1, 3, 1, [])
    assert guarded.log[-1] == (6, 1)
    assert replies == [("n2", [msg.APPENDED, 1, 4, False, True])]  # and it vouches for no more than was asked


def test_an_old_resend_erases_nothing() -> None:
    entries = [entry(index, 1) for index in range(2, 7)]
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, entries)
    replies = guarded.receive("n2", msg.APPEND, 1, 1, 2, 1, entries[1:3])
    assert guarded.log[-1] == (6, 1)
    assert replies == [("n2", [msg.APPENDED, 1, 5, False, True])]


def test_a_conflict_cuts_the_tail() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(index, 1) for index in range(2, 7)])
    replies = guarded.receive("n3", msg.APPEND, 2, 1, 2, 1, [entry(3, 1), entry(4, 2)])
    assert guarded.log[-2:] == [(3, 1), (4, 2)]
    assert replies == [("n3", [msg.APPENDED, 2, 5, False, True])]


def test_a_committed_entry_is_never_cut() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 4, 1, 0, [entry(index, 1) for index in range(2, 5)])
    assert guarded.machine.operations == [b"x"] * 3
    with pytest.raises(InvariantViolation, match="committed"):
        guarded.receive("n3", msg.APPEND, 2, 1, 2, 1, [entry(3, 2)])


def test_nothing_beyond_what_was_verified_is_committed() -> None:
    """A tail of an older term stands behind the last verified entry; the leader's commit index passes it."""
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(index, 1) for index in range(2, 7)])
    guarded.receive("n3", msg.APPEND, 2, 6, 3, 1, [])
    assert guarded.replica.core.commit_index == 3


# A: a message without prev commits nothing.


def test_a_snapshot_on_its_way_commits_no_divergent_entry() -> None:
    divergent = [entry(index, 1, b"lost") for index in range(2, 7)]
    stock, guarded = Stock(), Guarded()
    stock.append(1, 1, (1, 0), divergent)
    stock.receive("n3", type="append_entries", term=2, commit_index=50, serialized=(b"part", True, False))
    assert stock.core.raftCommitIndex == 6  # the defect: its own entries, which nobody else has

    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, divergent)
    guarded.receive("n3", msg.APPEND, 2, 50, 55, 2, [])
    replies = guarded.receive("n3", msg.SNAPSHOT, 2, 40, 2, 0, b"part", False)
    assert guarded.replica.core.commit_index == 1
    assert guarded.machine.operations == []
    assert replies == [("n3", [msg.SNAPSHOT_OK, 2, 40, 4, False])]


def test_a_snapshot_that_makes_no_state_is_not_acknowledged() -> None:
    """Stock pysyncobj says that it has it; the guarded member asks for it again, its state as before."""
    guarded = Guarded()
    guarded.receive("n3", msg.APPEND, 2, 50, 55, 2, [])
    guarded.receive("n3", msg.SNAPSHOT, 2, 40, 2, 0, b"not a snapshot", True)
    while guarded.replica.snapshots.installs.build_slice():
        pass
    replies = guarded.receive("n3", msg.SNAPSHOT, 2, 40, 2, 14, b"", True)
    assert replies == [("n3", [msg.SNAPSHOT_OK, 2, 40, 0, False])]
    assert (guarded.machine.operations, guarded.replica.core.commit_index) == ([], 1)


# D: acknowledgements of another term count nothing.


def test_an_acknowledgement_of_another_term_commits_nothing() -> None:
    stock = Stock()
    stock.append(1, 1, (1, 0), [[NO_OP, index, 1] for index in range(2, 7)])
    stock.world.now += 10
    stock.tick()
    for name in ("n3", "n4"):
        stock.receive(name, type="response_vote", term=stock.core.raftCurrentTerm)
    assert stock.core._isLeader()
    last = stock.log[-1][0]
    stock.receive("n2", type="next_node_idx", next_node_idx=last + 1, reset=False, success=True)
    stock.receive("n3", type="next_node_idx", next_node_idx=last + 1, reset=False, success=True)  # of term 1
    stock.tick()
    assert stock.core.raftCommitIndex == last  # the defect: nothing tells of which term they were

    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(index, 1) for index in range(2, 7)])
    term = guarded.lead()
    last = guarded.log[-1][0]
    guarded.receive("n2", msg.APPENDED, term, last + 1, False, True)
    guarded.receive("n3", msg.APPENDED, 1, last + 1, False, True)
    assert guarded.replica.core.commit_index == 1
    guarded.receive("n3", msg.APPENDED, term, last + 1, False, True)
    assert guarded.replica.core.commit_index == last


def test_a_vote_counts_once() -> None:
    stock = Stock()
    stock.world.now += 10
    stock.tick()
    for _ in range(2):
        stock.receive("n2", type="response_vote", term=1)
    assert stock.core._isLeader()  # the defect: two of five

    guarded = Guarded()
    guarded.clock.now += 10
    guarded.replica.pump()
    for name in ("n2", "n3"):
        guarded.receive(name, msg.PRE_VOTE_OK, guarded.replica.guard.prevote._round)
    for _ in range(3):
        guarded.receive("n2", msg.VOTE, 1)
    assert not guarded.replica.leading
    guarded.receive("n3", msg.VOTE, 1)
    assert guarded.replica.leading


def test_two_leaders_in_one_term_stop_the_member() -> None:
    guarded = Guarded()
    term = guarded.lead()
    with pytest.raises(InvariantViolation, match="claims to lead"):
        guarded.receive("n4", msg.APPEND, term, 1, 1, 0, [])


# Repair.


def test_the_hint_leads_to_the_end_of_a_short_log() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(2, 1), entry(3, 1)])
    assert guarded.receive("n2", msg.APPEND, 1, 9, 9, 1, []) == [("n2", [msg.APPENDED, 1, 4, True, False])]


def test_the_hint_leads_below_a_conflict_in_one_step() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 3, 1, 0, [entry(index, 1) for index in range(2, 500)])
    replies = guarded.receive("n3", msg.APPEND, 2, 3, 499, 2, [])
    assert replies == [("n3", [msg.APPENDED, 2, 4, True, False])]


def test_a_leader_goes_back_once_and_never_below_the_match() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(index, 1) for index in range(2, 7)])
    term = guarded.lead()

    def resent() -> list[int]:
        guarded.clock.now += SETTINGS.heartbeat_s + 0.01
        guarded.sent.clear()
        guarded.replica.pump()
        return [message[3] for name, message in guarded.sent if name == "n4" and message[0] == msg.APPEND]

    guarded.receive("n4", msg.APPENDED, term, 5, False, True)
    guarded.receive("n4", msg.APPENDED, term, 2, True, False)  # stale: it holds entries up to 4
    assert resent() == [4]
    before = guarded.replica.guard.progress._obeyed["n4"]
    guarded.receive("n4", msg.APPENDED, term, 2, True, False)
    assert guarded.replica.guard.progress._obeyed["n4"] == before


def test_an_acknowledgement_of_what_does_not_exist_stops_the_member() -> None:
    guarded = Guarded()
    term = guarded.lead()
    with pytest.raises(InvariantViolation, match="does not exist"):
        guarded.receive("n4", msg.APPENDED, term, 99, False, True)


# Elections.


def test_a_member_that_hears_its_leader_votes_for_nobody() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [])
    assert guarded.receive("n3", msg.PRE_VOTE, 1, 2, 100, 1) == []
    assert guarded.receive("n3", msg.REQUEST_VOTE, 2, 100, 1, False) == []
    assert guarded.replica.core.term == 1
    guarded.clock.now += SETTINGS.election_timeout_min_s + 0.01
    assert ("n3", [msg.PRE_VOTE_OK, 2]) in guarded.receive("n3", msg.PRE_VOTE, 2, 2, 100, 1)
    assert ("n3", [msg.VOTE, 2]) in guarded.receive("n3", msg.REQUEST_VOTE, 2, 100, 1, False)


def test_an_election_that_the_leader_asked_for_passes_stickiness() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [])
    assert guarded.receive("n3", msg.REQUEST_VOTE, 2, 100, 1, False) == []
    assert ("n3", [msg.VOTE, 2]) in guarded.receive("n3", msg.REQUEST_VOTE, 2, 100, 1, True)
    guarded = Guarded()
    term = guarded.lead()
    assert guarded.receive("n3", msg.REQUEST_VOTE, term + 1, 100, term, False) == []
    assert guarded.replica.leading
    assert ("n3", [msg.VOTE, term + 1]) in guarded.receive("n3", msg.REQUEST_VOTE, term + 1, 100, term, True)
    assert not guarded.replica.leading


def test_only_the_leader_of_the_term_can_ask_for_an_election() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 3, 1, 1, 0, [])
    assert guarded.receive("n4", msg.TIMEOUT_NOW, 3) == []
    assert guarded.receive("n4", msg.TIMEOUT_NOW, 4) == []
    assert guarded.receive("n2", msg.TIMEOUT_NOW, 2) == [("n2", [msg.TERM_AHEAD, 3])]
    assert guarded.replica.core.term == 3
    asked = guarded.receive("n2", msg.TIMEOUT_NOW, 3)
    assert sorted(asked) == [(name, [msg.REQUEST_VOTE, 4, 1, 0, True]) for name in FIVE]
    assert guarded.receive("n2", msg.TIMEOUT_NOW, 3) == [("n2", [msg.TERM_AHEAD, 4])]


def test_a_hand_over_survives_a_heartbeat_behind_it_and_ends_with_its_term() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [])
    guarded.replica.deliver("n2", [[msg.TIMEOUT_NOW, 1], [msg.APPEND, 1, 1, 1, 0, []]])
    guarded.sent.clear()
    guarded.replica.pump()
    assert ("n3", [msg.REQUEST_VOTE, 2, 1, 0, True]) in guarded.sent
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [])
    guarded.replica.deliver("n2", [[msg.TIMEOUT_NOW, 1]])
    guarded.replica.deliver("n3", [[msg.APPEND, 2, 1, 1, 0, []]])  # somebody leads a newer term already
    guarded.sent.clear()
    guarded.replica.pump()
    assert [message[0] for _, message in guarded.sent] == [msg.APPENDED]


def test_a_shorter_log_gets_no_pre_vote_and_no_vote() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(2, 1), entry(3, 1)])
    guarded.clock.now += SETTINGS.election_timeout_min_s + 0.01
    assert guarded.receive("n3", msg.PRE_VOTE, 1, 2, 2, 1) == []
    assert guarded.receive("n3", msg.REQUEST_VOTE, 2, 2, 1, False) == []
    assert guarded.receive("n3", msg.REQUEST_VOTE, 2, 3, 1, False) == [("n3", [msg.VOTE, 2])]


def test_one_vote_a_term_even_after_power_loss() -> None:
    guarded = Guarded()
    assert guarded.receive("n3", msg.REQUEST_VOTE, 4, 1, 0, False) == [("n3", [msg.VOTE, 4])]
    guarded.disk.crash(lose_all=True)
    disk, guarded = guarded.disk, Guarded()
    assert disk is not guarded.disk
    guarded.disk = disk
    again = Replica(
        name="n1", configuration=Configuration.of_names(["n1", *FIVE]),
        disk=disk, clock=ManualClock(), rng=Random(2), machine=ListMachine(),
        outlet=guarded, settings=SETTINGS, mutant=find(None), on_role=lambda role: None,
    )  # fmt: skip
    again.deliver("n4", [[msg.REQUEST_VOTE, 4, 9, 9, False]])
    again.pump()
    assert guarded.sent == []
    assert again.core.term == 4


def test_a_lower_term_is_told_the_higher_one() -> None:
    guarded = Guarded()
    guarded.receive("n2", msg.APPEND, 7, 1, 1, 0, [])
    for message in (
        [msg.APPEND, 3, 1, 1, 0, []],
        [msg.REQUEST_VOTE, 3, 1, 0, False],
        [msg.PRE_VOTE, 1, 3, 1, 0],
        [msg.READ_ROUND, 3, 1],
    ):
        assert guarded.receive("n3", *message) == [("n3", [msg.TERM_AHEAD, 7])]
    guarded = Guarded()
    term = guarded.lead()
    guarded.receive("n4", msg.TERM_AHEAD, term + 3)
    assert not guarded.replica.leading
    assert guarded.replica.core.term == term + 3


# Durability.


@pytest.mark.parametrize(
    ("message", "held"),
    [
        ([msg.APPEND, 1, 1, 1, 0, [entry(2, 1)]], msg.APPENDED),
        ([msg.REQUEST_VOTE, 1, 1, 0, False], msg.VOTE),
    ],
    ids=["acknowledgement", "vote"],
)
def test_nothing_that_depends_on_the_journal_leaves_before_its_sync(message: list[Any], held: int) -> None:
    guarded = Guarded()
    left_early: list[Any] = []
    guarded.disk.before = lambda step: left_early.extend(guarded.sent) if step == "sync" else None
    replies = guarded.receive("n2", *message)
    assert left_early == []
    assert [reply[0] for _, reply in replies] == [held]


def test_a_candidate_asks_for_votes_only_after_its_own_is_durable() -> None:
    guarded = Guarded()
    guarded.clock.now += 10
    guarded.replica.pump()
    guarded.receive("n2", msg.PRE_VOTE_OK, 1)
    early: list[int] = []
    guarded.disk.before = lambda step: early.extend(m[0] for _, m in guarded.sent) if step == "sync" else None
    sent = guarded.receive("n3", msg.PRE_VOTE_OK, 1)
    assert msg.REQUEST_VOTE in [message[0] for _, message in sent]
    assert msg.REQUEST_VOTE not in early


def test_appends_leave_before_the_leaders_own_sync() -> None:
    guarded = Guarded()
    guarded.lead()
    early: list[int] = []
    guarded.disk.before = lambda step: early.extend(m[0] for _, m in guarded.sent) if step == "sync" else None
    guarded.sent.clear()
    guarded.replica.proposals.add([b"x"], guarded.clock.now)
    guarded.replica.pump()
    assert early.count(msg.APPEND) == len(FIVE)


# E: apply never raises for a client's mistake; if it does, the member stops and nothing is applied twice.


def test_an_apply_that_raises_stops_the_member() -> None:
    guarded = Guarded()

    def broken(index: int, payload: bytes, operations: Any = None) -> list[Any]:
        raise ValueError("a bug")

    guarded.machine.apply = broken  # type: ignore[method-assign]
    with pytest.raises(InvariantViolation, match="entry 2 cannot be applied"):
        guarded.receive("n2", msg.APPEND, 1, 2, 1, 0, [entry(2, 1)])


def test_an_entry_of_an_unknown_kind_stops_the_member() -> None:
    """pysyncobj's own membership and version commands are pickles; they are never loaded."""
    guarded = Guarded()
    with pytest.raises(InvariantViolation, match="does not know"):
        guarded.receive("n2", msg.APPEND, 1, 2, 1, 0, [[b"\x02\x80\x04N.", 2, 1]])


async def test_another_leaders_entry_in_the_slot_is_not_success() -> None:
    guarded = Guarded()
    term = guarded.lead()
    waiter = guarded.replica.proposals.add([b"mine"], guarded.clock.now)
    guarded.replica.pump()
    index = guarded.log[-1][0]
    theirs = [entry(number, term + 1, b"theirs") for number in range(2, index + 1)]
    guarded.receive("n5", msg.APPEND, term + 1, index, 1, 0, theirs)
    assert guarded.machine.operations == [b"theirs"] * (index - 1)
    with pytest.raises(LeadershipLost):
        await waiter.wait()


def test_the_base_of_a_cut_log_answers_old_appends() -> None:
    """A resend that begins before the base: what it repeats is committed, what it adds is taken."""
    settings = RaftSettings(retain_entries=1)
    guarded = Guarded(settings=settings)
    entries = [entry(index, 1) for index in range(2, 12)]
    guarded.receive("n2", msg.APPEND, 1, 11, 1, 0, entries)
    guarded.replica.journal.compact(8)
    assert guarded.replica.journal.first_index == 8
    more = [*entries[2:], entry(12, 1)]
    assert guarded.receive("n2", msg.APPEND, 1, 12, 3, 1, more) == [
        ("n2", [msg.APPENDED, 1, 13, False, True])
    ]
    assert guarded.replica.core.applied_index == 12
    old = guarded.receive("n2", msg.APPEND, 1, 12, 3, 1, entries[2:4])
    assert old == [("n2", [msg.APPENDED, 1, 6, False, True])]


def test_stock_names_are_checked_at_import() -> None:
    assert issubclass(Core, SyncObj)
    assert NO_OP != REGULAR
