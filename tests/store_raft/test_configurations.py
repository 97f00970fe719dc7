"""Configurations as values, the conditions of a change, the identity file, and one member fed by hand."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_guard import FIVE, SETTINGS, Guarded, entry

from chaos.sim.disk import SimDisk
from raftkube.errors import (
    ConfigError,
    DiskFailed,
    InvariantViolation,
    MemberRetired,
    MembershipRefused,
)
from raftkube.store.raft import messages as msg
from raftkube.store.raft.admission import admit, open_identity
from raftkube.store.raft.identity import (
    DEFAULT_TOKEN,
    IdentityFile,
    bootstrap,
    cluster_id_of,
    new_member_id,
)
from raftkube.store.raft.membership import (
    CONFIGURATION,
    AddLearner,
    Change,
    Configuration,
    ConfigurationLog,
    MemberAddresses,
    Promote,
    Remove,
    Standing,
    UpdateAddress,
    changed,
)
from raftkube.store.raft.mutants import find
from raftkube.store.raft.replica import Replica
from raftkube.store.raft.waiting import Waiter
from raftkube.wire.frames import FrameError

THREE = Configuration({f"n{n}": MemberAddresses(f"h{n}:1", f"h{n}:2") for n in (1, 2, 3)})
WITH_LEARNER = Configuration(
    THREE.voters, {"n4#00000001": MemberAddresses("h4:1")}, frozenset({"n4#00000001"}), ("gone",)
)
ALL = frozenset({"n1", "n2", "n3", "n4#00000001"})
STANDING = Standing("n1", True, False, ALL, ALL)
NEW = AddLearner("n5#00000002", MemberAddresses("h5:1", "h5:2"), promote=True)


@pytest.mark.parametrize(
    ("change", "standing", "why"),
    [
        (NEW, STANDING._replace(change_under_way=True), "not committed yet"),
        (NEW, STANDING._replace(committed_in_term=False), "of its own term"),
        (NEW._replace(id="n2"), STANDING, "never used again"),
        (NEW._replace(id="gone"), STANDING, "never used again"),
        (NEW._replace(id="n2#00000009"), STANDING, "raftkube kv member replace n2"),
        (NEW._replace(addresses=MemberAddresses("h2:1")), STANDING, "h2:1 is the address of n2"),
        (NEW._replace(addresses=MemberAddresses("h5:1", "h2:2")), STANDING, "h2:2 is the address of n2"),
        (NEW._replace(addresses=MemberAddresses("h5")), STANDING, "peer address: 'h5' is not an address"),
        (NEW._replace(addresses=MemberAddresses("h5:0")), STANDING, "can be dialled"),
        (NEW._replace(addresses=MemberAddresses("h5:1", "x")), STANDING, "client address: 'x'"),
        (Promote("n9"), STANDING, "no member 'n9'"),
        (Promote("n2"), STANDING, "a voter already"),
        (Promote("n4#00000001"), STANDING._replace(caught_up=frozenset()), "not caught up"),
        (Promote("n4#00000001"), STANDING._replace(answering=frozenset({"n1"})), "does not answer"),
        (Remove("n9"), STANDING, "no member 'n9'"),
        (Remove("n1"), STANDING, "hands its leadership over"),
        (Remove("n2"), STANDING._replace(answering=frozenset({"n1", "n2"})), "only 1 of 2 voters"),
        (UpdateAddress("n2", "h3:1"), STANDING, "h3:1 is the address of n3"),
        (UpdateAddress("n2", "h2:1"), STANDING, "already"),
        (UpdateAddress("n2", "nowhere"), STANDING, "peer address"),
    ],
)
def test_a_change_that_fails_a_condition_is_refused_with_its_reason(
    change: Change, standing: Standing, why: str
) -> None:
    with pytest.raises(MembershipRefused, match=why):
        changed(WITH_LEARNER, change, standing)


def test_changes_do_what_they_say() -> None:
    added = changed(THREE, NEW, STANDING)
    assert added.learners == {NEW.id: NEW.addresses}
    assert added.promote == frozenset({NEW.id})
    stays = changed(THREE, NEW._replace(promote=False), STANDING)
    assert stays.promote == frozenset()
    promoted = changed(WITH_LEARNER, Promote("n4#00000001"), STANDING)
    assert "n4#00000001" in promoted.voters
    assert (promoted.learners, promoted.promote) == ({}, frozenset())
    removed = changed(WITH_LEARNER, Remove("n2"), STANDING)
    assert sorted(removed.voters) == ["n1", "n3"]
    assert removed.removed == ("gone", "n2")
    no_learner = changed(WITH_LEARNER, Remove("n4#00000001"), STANDING._replace(answering=frozenset()))
    assert (no_learner.learners, no_learner.promote) == ({}, frozenset())
    moved = changed(WITH_LEARNER, UpdateAddress("n4#00000001", client="h4:2"), STANDING)
    assert moved.learners["n4#00000001"] == MemberAddresses("h4:1", "h4:2")
    assert changed(THREE, UpdateAddress("n2", "x:1"), STANDING).voters["n2"] == ("x:1", "h2:2")


def test_a_group_has_a_largest_size() -> None:
    configuration, standing = THREE, STANDING
    for number in range(12):
        change = AddLearner(f"m{number}#00000000", MemberAddresses(f"m{number}:1"), False)
        configuration = changed(configuration, change, standing)
    with pytest.raises(MembershipRefused, match="at most 15"):
        changed(configuration, NEW, standing)


_IDS = st.text("abc#", min_size=1, max_size=5)
_MEMBERS = st.dictionaries(_IDS, st.builds(MemberAddresses, st.text(max_size=5), st.text(max_size=5)))


@given(_MEMBERS, _MEMBERS, st.frozensets(_IDS), st.lists(_IDS).map(tuple))
def test_a_configuration_survives_its_encoding(
    voters: dict[str, MemberAddresses],
    learners: dict[str, MemberAddresses],
    promote: frozenset[str],
    removed: tuple[str, ...],
) -> None:
    configuration = Configuration(voters, learners, promote, removed)
    assert Configuration.decode(configuration.encode()) == configuration


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x95\x09\x90\x90\x90\x90", THREE.encode()[:-1]])
def test_bytes_that_are_no_configuration_are_refused(data: bytes) -> None:
    with pytest.raises(InvariantViolation):
        Configuration.decode(data)


def test_the_log_knows_what_held_where() -> None:
    log = ConfigurationLog(THREE)
    told: list[Configuration] = []
    log.on_change = told.append
    log.appended(7, CONFIGURATION + WITH_LEARNER.encode())
    after = changed(WITH_LEARNER, Promote("n4#00000001"), STANDING)
    log.appended(9, CONFIGURATION + after.encode())
    assert [log.at(index) for index in (1, 6, 7, 8, 9, 99)] == [
        THREE, THREE, WITH_LEARNER, WITH_LEARNER, after, after,
    ]  # fmt: skip
    assert (log.effective, log.index) == (after, 9)
    log.truncated(9)
    assert (log.effective, log.index) == (WITH_LEARNER, 7)
    assert told == [WITH_LEARNER, after, WITH_LEARNER]
    log.appended(9, CONFIGURATION + after.encode())
    log.forget(8)
    assert (log.at(8), log.at(9)) == (WITH_LEARNER, after)
    log.restored(20, THREE)
    assert (log.effective, log.at(20)) == (THREE, THREE)
    log.truncated(1)  # the log was reset
    assert log.effective == THREE


# The identity file.


def fresh(disk: SimDisk) -> IdentityFile:
    identity = bootstrap("n1", DEFAULT_TOKEN, "c", THREE, Random(1))
    return open_identity(disk, "n1", DEFAULT_TOKEN, lambda: identity)


def test_the_identity_is_there_after_a_power_loss_with_every_pin() -> None:
    disk = SimDisk(Random(1))
    made = fresh(disk)
    assert made.pin("n2", "aa")
    assert made.pin("n2", "aa")
    assert not made.pin("n2", "bb")
    disk.crash(lose_all=True)
    again = open_identity(disk, "n1", DEFAULT_TOKEN, lambda: pytest.fail("it was there"))
    assert again.identity == made.identity
    assert not again.pin("n2", "bb")


@pytest.mark.parametrize("lose_all", [True, False])
def test_a_crash_at_any_step_of_writing_keeps_the_old_or_the_new_identity(lose_all: bool) -> None:
    for step in range(1, 12):
        disk = SimDisk(Random(step))
        before = fresh(disk).identity
        left = step

        def crash(what: str, disk: SimDisk = disk) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(5, "power loss")

        disk.before = crash
        file = IdentityFile(disk, before)
        try:
            file.pin("n2", "aa")
        except DiskFailed:
            assert file.pinned("n2") is None  # not relied on before it is durable
        disk.before = lambda what: None
        disk.crash(lose_all=lose_all)
        found = IdentityFile.load(disk)
        assert found is not None
        assert found.identity.pins in ({}, {"n2": "aa"})
        assert (found.identity.id, found.identity.incarnation) == (before.id, before.incarnation)


def test_a_damaged_identity_is_not_guessed_at() -> None:
    size = len(fresh(SimDisk(Random(1))).identity.pack())
    for position in range(size):
        disk = SimDisk(Random(1))
        fresh(disk)

        def flip(data: bytearray, position: int = position) -> None:
            data[position] ^= 0x10

        disk.damage("identity", flip)
        with pytest.raises(InvariantViolation, match="identity"):
            IdentityFile.load(disk)
    disk = SimDisk(Random(1))
    fresh(disk)
    disk.damage("identity", lambda data: data.__delitem__(slice(5, None)))
    with pytest.raises(InvariantViolation, match="too short"):
        IdentityFile.load(disk)


def test_a_directory_serves_its_member_and_cluster_alone() -> None:
    disk = SimDisk(Random(1))
    fresh(disk)
    with pytest.raises(ConfigError, match="that of member 'n1', not of 'n2'"):
        open_identity(disk, "n2", DEFAULT_TOKEN, lambda: pytest.fail("it is not blank"))
    with pytest.raises(ConfigError, match="--initial-cluster-token 'raftkube', not 'other'"):
        open_identity(disk, "n1", "other", lambda: pytest.fail("it is not blank"))


def test_cluster_ids_differ_by_token_names_and_addresses() -> None:
    ids = {
        cluster_id_of("t", {"a": "h:1", "b": "h:2"}),
        cluster_id_of("u", {"a": "h:1", "b": "h:2"}),
        cluster_id_of("t", {"a": "h:1", "c": "h:2"}),
        cluster_id_of("t", {"a": "h:1", "b": "h:3"}),
    }
    assert len(ids) == 4
    assert all(len(id_) == 16 for id_ in ids)
    assert cluster_id_of("t", {"b": "h:2", "a": "h:1"}) in ids
    assert new_member_id("a", Random(1)) != new_member_id("a", Random(2))


def test_whom_a_member_listens_to() -> None:
    file = fresh(SimDisk(Random(1)))
    assert admit(file, WITH_LEARNER, WITH_LEARNER, "n2", "aa") is None
    refusal = admit(file, WITH_LEARNER, WITH_LEARNER, "n2", "bb")
    assert refusal is not None
    assert "n2 came back with an empty disk" in refusal
    assert admit(file, WITH_LEARNER, WITH_LEARNER, "later#00000007", "cc") is None
    with pytest.raises(FrameError, match="'stranger' is not a member"):
        admit(file, WITH_LEARNER, WITH_LEARNER, "stranger", "dd")
    assert "gone was removed" in str(admit(file, WITH_LEARNER, WITH_LEARNER, "gone", "ee"))
    # A removal that is not committed yet may be cut off again: the member is not sent away for good.
    without = changed(THREE, Remove("n3"), STANDING)
    with pytest.raises(FrameError):
        admit(file, without, THREE, "n3", "ff")
    assert set(file.identity.pins) == {"n2", "later#00000007"}


# One member, fed by hand. FIVE are the other voters' names, n1 is the member.


def five_and(learners: list[str]) -> Configuration:
    voters = Configuration.of_names(["n1", *FIVE]).voters
    return Configuration(voters, {id_: MemberAddresses(f"{id_}:1") for id_ in learners})


def replica_of(guarded: Guarded) -> Replica:
    return guarded.replica


def configure(guarded: Guarded, configuration: Configuration, index: int = 2, term: int = 1) -> None:
    command = CONFIGURATION + configuration.encode()
    guarded.receive("n2", msg.APPEND, term, 1, index - 1, 0 if index == 2 else term, [[command, index, term]])


def test_an_entry_of_the_log_is_in_force_before_it_is_committed() -> None:
    guarded = Guarded()
    configure(guarded, five_and(["l1"]))
    assert replica_of(guarded).core.commit_index == 1
    assert replica_of(guarded).guard.knows("l1")
    assert sorted(replica_of(guarded).core.voters()) == FIVE
    # Another leader's entry takes its place, and the one before returns.
    guarded.receive("n3", msg.APPEND, 2, 1, 1, 0, [entry(2, 2)])
    assert not replica_of(guarded).guard.knows("l1")


def test_a_learners_vote_and_pre_vote_count_nothing() -> None:
    guarded = Guarded()
    configure(guarded, five_and(["l1", "l2"]))
    guarded.clock.now += 10
    replica_of(guarded).pump()
    number = replica_of(guarded).guard.prevote._round
    for name in ("l1", "l2", "n2"):
        guarded.receive(name, msg.PRE_VOTE_OK, number)
    assert replica_of(guarded).core.role == 0  # two of five so far
    guarded.receive("n3", msg.PRE_VOTE_OK, number)
    assert replica_of(guarded).core.role == 1
    term = replica_of(guarded).core.term
    for name in ("l1", "l2", "n2"):
        guarded.receive(name, msg.VOTE, term)
    assert not replica_of(guarded).leading
    guarded.receive("n3", msg.VOTE, term)
    assert replica_of(guarded).leading


def test_elections_and_reads_need_the_majority_of_the_configuration_in_force() -> None:
    """Six voters need four, although the member began with five."""
    guarded = Guarded()
    configure(guarded, Configuration.of_names(["n1", *FIVE, "n6"]))
    guarded.clock.now += 10
    replica_of(guarded).pump()
    number = replica_of(guarded).guard.prevote._round
    for name in ("n2", "n3"):
        guarded.receive(name, msg.PRE_VOTE_OK, number)
    assert replica_of(guarded).core.role == 0
    guarded.receive("n6", msg.PRE_VOTE_OK, number)
    assert replica_of(guarded).core.role == 1
    for name in ("n2", "n3", "n6"):
        assert not replica_of(guarded).leading
        guarded.receive(name, msg.VOTE, replica_of(guarded).core.term)
    last, term = replica_of(guarded).journal.last_index, replica_of(guarded).core.term
    for name in ("n2", "n3", "n6"):
        assert replica_of(guarded).core.commit_index < last
        guarded.receive(name, msg.APPENDED, term, last + 1, False, True)
    waiter = Waiter()
    replica_of(guarded).reads.add(waiter, guarded.clock.now)
    replica_of(guarded).pump()
    asked = [message for _, message in guarded.sent if message[0] == msg.READ_ROUND]
    for name in ("n2", "n3", "n6"):
        assert not waiter.resolved
        guarded.receive(name, msg.READ_ROUND_OK, *asked[-1][1:])
    assert waiter.resolved


def test_a_log_that_a_snapshot_replaces_takes_its_configurations_along() -> None:
    guarded = Guarded()
    configure(guarded, five_and(["l1"]))
    journal = replica_of(guarded).journal
    journal.reset(1, 5, b"\x01")  # a snapshot ends before that entry, in another term: the entry is void
    journal.configurations.restored(1, None)
    assert not replica_of(guarded).guard.knows("l1")


def test_a_learner_grants_its_vote_for_the_candidate_may_know_it_as_voter() -> None:
    guarded = Guarded()
    voters = Configuration.of_names(FIVE).voters
    configure(guarded, Configuration(voters, {"n1": MemberAddresses("n1:1")}))
    guarded.clock.now += 10
    sent = guarded.receive("n3", msg.REQUEST_VOTE, 5, 9, 4, False)
    assert ("n3", [msg.VOTE, 5]) in sent


def test_a_learner_neither_campaigns_nor_wakes_for_it() -> None:
    guarded = Guarded()
    voters = Configuration.of_names(FIVE).voters
    configure(guarded, Configuration(voters, {"n1": MemberAddresses("n1:1")}))
    guarded.sent.clear()
    guarded.clock.now += 100
    replica_of(guarded).journal.seal()
    replica_of(guarded).pump()
    assert [message for _, message in guarded.sent if message[0] in (msg.PRE_VOTE, msg.REQUEST_VOTE)] == []
    assert replica_of(guarded).core.term == 1
    assert replica_of(guarded).next_deadline() > guarded.clock.now + 1


def test_no_change_before_an_entry_of_the_leaders_own_term_is_committed() -> None:
    guarded = Guarded()
    guarded.lead()
    change = AddLearner("l1#00000000", MemberAddresses("l1:1"), False)
    with pytest.raises(MembershipRefused, match="of its own term"):
        replica_of(guarded).changes.request(change, guarded.clock.now)
    commit_no_op(guarded)
    replica_of(guarded).changes.request(change, guarded.clock.now)
    replica_of(guarded).pump()
    assert replica_of(guarded).guard.knows("l1#00000000")
    with pytest.raises(MembershipRefused, match="not committed yet"):
        replica_of(guarded).changes.request(change, guarded.clock.now)


def commit_no_op(guarded: Guarded) -> None:
    last, term = replica_of(guarded).journal.last_index, replica_of(guarded).core.term
    for name in ("n2", "n3"):
        guarded.receive(name, msg.APPENDED, term, last + 1, False, True)
    assert replica_of(guarded).core.commit_index == last


def test_learners_answers_commit_nothing_and_keep_no_leader() -> None:
    guarded = Guarded()
    configure(guarded, five_and(["l1", "l2", "l3"]))
    for name in ("l1", "l2", "l3"):
        replica_of(guarded).guard.connection_up(name)
    term = guarded.lead()
    last = replica_of(guarded).journal.last_index
    for name in ("l1", "l2", "l3", "n2"):
        guarded.receive(name, msg.APPENDED, term, last + 1, False, True)
    assert replica_of(guarded).core.commit_index < last
    guarded.receive("n3", msg.APPENDED, term, last + 1, False, True)
    assert replica_of(guarded).core.commit_index == last
    guarded.clock.now += 0.7  # beyond the time in which a majority must have answered
    for name in ("l1", "l2", "l3", "n2"):
        guarded.receive(name, msg.APPENDED, term, last + 1, False, True)
    assert not replica_of(guarded).leading


def test_a_learners_answer_confirms_no_read() -> None:
    guarded = Guarded()
    configure(guarded, five_and(["l1", "l2", "l3"]))
    guarded.lead()
    commit_no_op(guarded)
    waiter = Waiter()
    replica_of(guarded).reads.add(waiter, guarded.clock.now)
    guarded.sent.clear()
    replica_of(guarded).pump()
    sent = [message for name, message in guarded.sent if message[0] == msg.READ_ROUND]
    assert len(sent) == len(FIVE)  # and no learner was asked
    for name in ("l1", "l2", "l3", "n2"):
        guarded.receive(name, msg.READ_ROUND_OK, *sent[0][1:])
    assert not waiter.resolved
    guarded.receive("n3", msg.READ_ROUND_OK, *sent[0][1:])
    assert waiter.resolved


def test_the_new_majority_holds_from_the_entry_on() -> None:
    """Six voters need four, from the moment the promotion stands in the leader's log."""
    guarded = Guarded()
    configure(guarded, five_and(["l1"]))
    replica_of(guarded).guard.connection_up("l1")
    term = guarded.lead()
    commit_no_op(guarded)
    last = replica_of(guarded).journal.last_index
    guarded.receive("l1", msg.APPENDED, term, last + 1, False, True)
    replica_of(guarded).changes.request(Promote("l1"), guarded.clock.now)
    replica_of(guarded).pump()
    last = replica_of(guarded).journal.last_index
    for name in ("n2", "n3"):
        guarded.receive(name, msg.APPENDED, term, last + 1, False, True)
    assert replica_of(guarded).core.commit_index == last - 1  # three of six are no majority
    guarded.receive("l1", msg.APPENDED, term, last + 1, False, True)
    assert replica_of(guarded).core.commit_index == last


def test_a_learner_that_never_answered_is_not_promoted_however_short_the_log() -> None:
    guarded = Guarded()
    configuration = five_and(["l1"])
    configure(guarded, Configuration(configuration.voters, configuration.learners, frozenset({"l1"})))
    term = guarded.lead()
    commit_no_op(guarded)
    replica_of(guarded).guard.connection_up("l1")
    replica_of(guarded).pump()
    assert "l1" in replica_of(guarded).configuration.learners
    with pytest.raises(MembershipRefused, match="not caught up"):
        replica_of(guarded).changes.request(Promote("l1"), guarded.clock.now)
    last = replica_of(guarded).journal.last_index
    guarded.receive("l1", msg.APPENDED, term, last + 1, False, True)
    assert "l1" in replica_of(guarded).configuration.voters


def test_a_removed_voter_is_forgotten_with_what_it_acknowledged() -> None:
    guarded = Guarded()
    term = guarded.lead()
    commit_no_op(guarded)
    replica_of(guarded).changes.request(Remove("n3"), guarded.clock.now)
    replica_of(guarded).pump()
    last = replica_of(guarded).journal.last_index
    before = replica_of(guarded).core.commit_index
    guarded.receive("n3", msg.APPENDED, term, last + 1, False, True)
    guarded.receive("n2", msg.APPENDED, term, last + 1, False, True)
    assert replica_of(guarded).core.commit_index == before  # two of four
    guarded.receive("n4", msg.APPENDED, term, last + 1, False, True)
    assert replica_of(guarded).core.commit_index == last


def test_a_member_that_applies_its_own_removal_stops() -> None:
    guarded = Guarded()
    without = Configuration(Configuration.of_names(FIVE).voters, removed=("n1",))
    configure(guarded, without)
    with pytest.raises(MemberRetired, match="n1 was removed from the cluster"):
        guarded.receive("n2", msg.APPEND, 1, 2, 2, 1, [])


def test_a_restart_finds_the_configuration_in_the_journal() -> None:
    guarded = Guarded()
    configure(guarded, five_and(["l1"]))
    again = Replica(
        name="n1",
        configuration=Configuration.of_names(["n1", *FIVE]),
        disk=guarded.disk,
        clock=guarded.clock,
        rng=Random(2),
        machine=guarded.machine,
        outlet=guarded,
        settings=SETTINGS,
        mutant=find(None),
        on_role=lambda role: None,
    )
    assert again.guard.knows("l1")
    assert sorted(again.core.voters()) == FIVE
