"""Members come, go and move: learners, promotion, removal, replacement, under writes, crashes and cuts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from chaos.sim.changing_group import ChangingGroup
from chaos.sim.clock import run_simulation
from raftkube.errors import (
    ConfigError,
    InvariantViolation,
    LeadershipLost,
    MemberRetired,
    MembershipRefused,
    NotLeader,
    StoreError,
)
from raftkube.net import Address
from raftkube.store.raft.identity import bootstrap
from raftkube.store.raft.membership import AddLearner, MemberAddresses, Promote, Remove, UpdateAddress
from raftkube.store.raft.settings import RaftSettings

Scenario = Callable[[ChangingGroup], Awaitable[None]]
SMALL = RaftSettings(
    snapshot_log_entries=30, retain_entries=5, snapshot_chunk_bytes=300, segment_bytes=16 * 1024
)


def simulate(
    scenario: Scenario, *, seed: int = 1, size: int = 3, settings: RaftSettings | None = None
) -> ChangingGroup:
    """Run `scenario` on a started group; no invariant may have been broken in it."""
    made: list[ChangingGroup] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = ChangingGroup(seed, nursery, size=size, settings=settings)
            made.append(group)
            await group.start_all()
            await scenario(group)
            nursery.cancel_scope.cancel()

    run_simulation(seed, main)
    assert made[0].violations == []
    return made[0]


def others(group: ChangingGroup, *names: str) -> list[str]:
    return [other for other in group.names if other not in names]


async def equal_logs(group: ChangingGroup) -> list[bytes]:
    """Every member has applied the same; what that is."""
    await group.propose(b"last")
    await group.wait_converged()
    logs = [group.machine(name).operations for name in group.names]
    assert all(log == logs[0] for log in logs)
    return logs[0]


@pytest.mark.parametrize("settings", [RaftSettings(), SMALL], ids=["by-appends", "by-snapshot"])
def test_a_learner_catches_up_becomes_a_voter_and_the_old_one_goes(settings: RaftSettings) -> None:
    async def scenario(group: ChangingGroup) -> None:
        await group.wait_leader()
        for number in range(100):
            await group.propose(b"%d" % number)
        id_ = await group.add("store-4")
        assert id_.startswith("store-4#")
        await group.start("store-4")
        await group.wait_voter(id_)
        leader = await group.wait_leader()
        old = others(group, leader, "store-4")[0]
        await group.remove(old, old)
        assert sorted(group.node(leader).configuration.voters) == sorted(
            [id_, *(name for name in group.names if name != "store-4")]
        )
        log = await equal_logs(group)
        assert log[:100] == [b"%d" % number for number in range(100)]
        # The new one counts: with one of the others gone it makes the majority.
        await group.crash(others(group, "store-4")[0])
        await group.propose(b"with the new one")

    simulate(scenario, settings=settings)


def test_a_learner_that_was_not_asked_to_vote_stays_one_until_it_is_promoted() -> None:
    async def scenario(group: ChangingGroup) -> None:
        id_ = await group.add("store-4", promote=False)
        await group.start("store-4")
        await group.propose(b"x")
        await trio.sleep(10)
        leader = await group.wait_leader()
        assert id_ in group.node(leader).configuration.learners
        assert group.machine("store-4").operations == [b"x"]
        await group.change(Promote(id_))
        await group.wait_voter(id_)

    simulate(scenario)


def test_a_learners_acknowledgement_commits_nothing_and_keeps_no_leader() -> None:
    """Three voters and two learners: leader and learners are three of five, and no majority."""

    async def scenario(group: ChangingGroup) -> None:
        for name in ("store-4", "store-5"):
            await group.add(name, promote=False)
            await group.start(name)
        await group.propose(b"before")
        await group.wait_converged()
        leader = await group.wait_leader()
        voters = {"store-1", "store-2", "store-3"} - {leader}
        group.network.partition({leader, "store-4", "store-5"}, voters)
        with pytest.raises(LeadershipLost):
            await group.node(leader).propose(b"lost")
        assert group.node(leader).role.role == "follower"
        with pytest.raises(StoreError):
            await group.node(leader).read_index()
        await group.wait_leader(among=sorted(voters))
        group.network.heal()
        log = await equal_logs(group)
        assert b"lost" not in log

    simulate(scenario)


def test_learners_never_campaign() -> None:
    async def scenario(group: ChangingGroup) -> None:
        await group.add("store-4", promote=False)
        await group.start("store-4")
        await group.wait_converged()
        term = group.node("store-4").status().term
        for name in others(group, "store-4"):
            await group.crash(name)
        await trio.sleep(20)
        status = group.node("store-4").status()
        assert (status.term, status.role) == (term, "follower")

    simulate(scenario)


def test_a_dead_member_is_replaced() -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        for number in range(50):
            await group.propose(b"%d" % number)
        dead = others(group, leader)[0]
        await group.crash(dead)
        await group.remove(dead, dead)
        id_ = await group.add(dead)  # on the same machine, with a new disk
        assert id_ != dead
        await group.start(dead)
        await group.wait_voter(id_)
        log = await equal_logs(group)
        assert log == [b"%d" % number for number in range(50)] + [b"last"]

    simulate(scenario, settings=SMALL)


def test_a_wiped_disk_is_refused_under_its_old_id_and_welcome_under_a_new_one() -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        await group.propose(b"x")
        await group.wait_converged()
        wiped = others(group, leader)[0]
        await group.crash(wiped)
        group.machine_of(wiped)
        await group.start(wiped)
        with trio.fail_after(10):
            await group.hosts[wiped].ended.wait()
        error = group.hosts[wiped].error
        assert isinstance(error, MemberRetired)
        assert f"{wiped} came back with an empty disk; it must rejoin under a new id" in str(error)
        assert f"raftkube kv member replace {wiped}" in str(error)
        assert group.machine(wiped).operations == []
        await group.remove(wiped, wiped)
        id_ = await group.add(wiped)
        await group.start(wiped)
        await group.wait_voter(id_)
        assert await equal_logs(group) == [b"x", b"last"]

    simulate(scenario)


def test_two_wiped_disks_elect_nobody() -> None:
    """The one that kept its disk holds the only copy: without the pins the two would outvote it."""

    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        await group.propose(b"precious")
        await group.wait_converged()
        for name in group.names:
            await group.crash(name)
        for name in others(group, leader):
            group.machine_of(name)
            await group.start(name)
        await group.start(leader)
        await trio.sleep(20)
        assert group.machine(leader).operations in ([], [b"precious"])
        assert not group.node(leader).role.ready
        errors = [group.hosts[name].error for name in others(group, leader)]
        assert all(isinstance(error, MemberRetired) for error in errors)

    simulate(scenario)


def test_of_five_changes_at_once_one_is_accepted() -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        outcomes: list[str] = []

        async def one(number: int) -> None:
            change = AddLearner(f"new-{number}#0000000{number}", MemberAddresses(f"new-{number}:1"), False)
            try:
                await group.node(leader).change_members(change)
            except MembershipRefused as error:
                outcomes.append(error.message)
            else:
                outcomes.append("accepted")

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(one, number)
        assert outcomes.count("accepted") == 1
        refused = [outcome for outcome in outcomes if outcome != "accepted"]
        assert all("another change of the members is not committed yet" in text for text in refused)
        assert len(group.node(leader).configuration.learners) == 1

    simulate(scenario)


def test_a_configuration_holds_as_soon_as_it_is_in_the_log_and_reverts_when_it_is_cut_off() -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        group.network.partition({leader}, set(others(group, leader)))
        change = AddLearner("store-4#00000000", MemberAddresses("store-4:1"), promote=False)
        with pytest.raises(LeadershipLost):
            await group.node(leader).change_members(change)
        assert change.id in group.node(leader).configuration.learners  # in its log, committed nowhere
        replica = group.node(leader)._replica
        assert replica is not None
        assert change.id not in replica.committed_configuration.members
        await group.crash(leader)
        await group.start(leader)  # the journal carries it through a restart
        assert change.id in group.node(leader).configuration.learners
        new = await group.wait_leader(among=others(group, leader))
        await group.node(new).propose(b"the other way")
        group.network.heal()
        await equal_logs(group)
        for name in group.names:
            assert group.node(name).configuration.learners == {}

    simulate(scenario)


def test_a_snapshot_carries_the_members_through_compaction_and_restart() -> None:
    async def scenario(group: ChangingGroup) -> None:
        id_ = await group.add("store-4")
        await group.start("store-4")
        await group.wait_voter(id_)
        await group.remove("store-1", "store-1")
        for number in range(200):
            await group.propose(b"%d" % number)
        await group.wait_converged()
        for name in group.names:
            assert group.node(name).status().log_first > 50
            await group.crash(name)
        for name in group.names:
            await group.start(name)
        await group.wait_converged()
        for name in group.names:
            assert id_ in group.node(name).configuration.voters

    simulate(scenario, settings=SMALL, seed=3)


def test_a_removed_member_stops_with_a_sentence_and_cannot_disrupt() -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        gone = others(group, leader)[0]
        for other in others(group, gone):  # it does not hear of its removal
            group.network.cut(other, gone)
        await group.remove(gone, gone)
        await group.propose(b"without it")
        term = group.node(leader).status().term
        await trio.sleep(5)
        group.network.heal()
        with trio.fail_after(30):
            await group.hosts[gone].ended.wait()
        error = group.hosts[gone].error
        assert isinstance(error, MemberRetired)
        assert f"{gone} was removed from the cluster" in str(error)
        status = group.node(leader).status()
        assert (status.term, status.role) == (term, "leader")
        await group.start(gone)  # nor after a restart
        with trio.fail_after(30):
            await group.hosts[gone].ended.wait()
        await equal_logs(group)

    simulate(scenario)


def test_a_removal_that_is_not_committed_sends_nobody_away() -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        wanted, other = others(group, leader)
        group.network.partition({leader, wanted}, {other})
        with pytest.raises(LeadershipLost):  # the two that are left would both have to agree
            await group.node(leader).change_members(Remove(wanted))
        await trio.sleep(5)
        assert group.hosts[wanted].error is None
        group.network.reset(leader, other)
        group.network.heal()
        group.network.partition({leader}, {wanted, other})
        new = await group.wait_leader(among=[wanted, other])
        await group.node(new).propose(b"the removal never was")
        group.network.heal()
        await equal_logs(group)
        assert group.hosts[wanted].error is None
        assert wanted in group.node(leader).configuration.voters

    simulate(scenario)


def test_the_leader_hands_over_before_it_is_removed() -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        with pytest.raises(NotLeader) as caught:
            await group.node(leader).change_members(Remove(leader))
        heir = caught.value.fields["leader"]
        assert heir in others(group, leader)
        assert leader in group.node(leader).configuration.voters
        await group.remove(leader, leader)
        with trio.fail_after(30):
            await group.hosts[leader].ended.wait()
        assert await group.wait_leader() in group.names
        await equal_logs(group)

    simulate(scenario)


def test_the_last_voter_and_a_majority_that_answers_are_kept() -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        dead, alive = others(group, leader)
        await group.crash(dead)
        await trio.sleep(2)
        with pytest.raises(MembershipRefused, match="only 1 of 2 voters would answer"):
            await group.node(leader).change_members(Remove(alive))
        await group.remove(dead, dead)

    simulate(scenario)

    async def alone(group: ChangingGroup) -> None:
        await group.wait_leader()
        with pytest.raises(MembershipRefused, match="last voter"):
            await group.node("store-1").change_members(Remove("store-1"))

    simulate(alone, size=1)


def test_one_member_grows_to_three() -> None:
    async def scenario(group: ChangingGroup) -> None:
        await group.propose(b"alone")
        for name in ("store-2", "store-3"):
            id_ = await group.add(name)
            await group.start(name)
            await group.wait_voter(id_)
        await equal_logs(group)
        await group.crash("store-1")
        await group.propose(b"without the first")

    simulate(scenario, size=1)


def test_a_member_moves_to_another_address() -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        moved = others(group, leader)[0]
        await group.stop(moved)
        group.members[moved] = Address(moved, 9999)
        await group.change(UpdateAddress(moved, peer=f"{moved}:9999"))
        await group.start(moved)
        await group.propose(b"x")
        await group.wait_converged()
        for name in others(group, leader, moved):
            await group.crash(name)
        await group.propose(b"by the moved one")

    simulate(scenario)


def test_members_that_all_moved_at_once_find_each_other_by_their_flags() -> None:
    """A supervisor gave every port away: the addresses in the log are stale, those in the flags are not."""

    async def scenario(group: ChangingGroup) -> None:
        await group.propose(b"x")
        for name in group.names:
            await group.stop(name)
        group.members = {name: Address(name, 7777) for name in group.names}
        group.initial = dict(group.members)
        await group.start_all()
        assert await equal_logs(group) == [b"x", b"last"]

    simulate(scenario)


def test_every_member_is_replaced_at_a_new_address_under_writes() -> None:
    async def scenario(group: ChangingGroup) -> None:
        acknowledged: list[bytes] = []

        async def write(scope: trio.CancelScope) -> None:
            with scope:
                while True:
                    operation = b"%d" % len(acknowledged)
                    await group.propose(operation)
                    acknowledged.append(operation)
                    await trio.sleep(0.02)

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, scope)
            for old in ("store-1", "store-2", "store-3"):
                await group.wait_leader()
                new = f"{old}-new"
                id_ = await group.add(new)
                await group.start(new)
                await group.wait_voter(id_)
                await group.remove(old, old)
                with trio.fail_after(30):
                    await group.hosts[old].ended.wait()
            scope.cancel()
        log = await equal_logs(group)
        assert [op for op in acknowledged if op not in log] == []
        assert sorted(group.names) == ["store-1-new", "store-2-new", "store-3-new"]

    simulate(scenario, settings=SMALL)


@pytest.mark.parametrize("size", [1, 3])
def test_a_directory_without_its_journal_is_damage_not_a_beginning(size: int) -> None:
    async def scenario(group: ChangingGroup) -> None:
        await group.propose(b"x")
        await group.stop("store-1")
        disk = group.hosts["store-1"].disk
        for name in [name for name in disk.names() if name.startswith("journal-")]:
            disk.remove(name)
        disk.sync_directory()
        with pytest.raises(InvariantViolation, match="the journal of store-1 is gone"):
            await group.start("store-1")

    simulate(scenario, size=size)


def test_another_members_or_clusters_directory_is_refused() -> None:
    async def scenario(group: ChangingGroup) -> None:
        await group.wait_converged()
        for name in group.names:
            await group.crash(name)
        first, second = group.hosts["store-1"], group.hosts["store-2"]
        first.disk, second.disk = second.disk, first.disk
        with pytest.raises(ConfigError, match="'store-2', not of 'store-1'"):
            await group.start("store-1")

    simulate(scenario)


def test_a_newcomer_can_be_elected_by_one_who_has_not_heard_of_it() -> None:
    """Four voters, the leader dead: the newcomer's log is the longest, one voter never saw it come."""

    async def scenario(group: ChangingGroup) -> None:
        await group.wait_converged()
        leader = await group.wait_leader()
        lagging, other = others(group, leader)
        group.network.partition({lagging}, {leader, other, "store-4"})
        id_ = await group.add("store-4")
        await group.start("store-4")
        with trio.fail_after(30):
            while id_ not in group.node(other).configuration.voters:  # noqa: ASYNC110  virtual time
                await trio.sleep(0.05)
        group.network.partition({other}, {leader, "store-4"})
        with trio.move_on_after(0.3):
            await group.node(leader).propose(b"only the newcomer gets it")
        for cut_off in (lagging, other):
            group.network.reset(leader, cut_off)  # what the cut holds back is lost with its connection
        await group.crash(leader)
        assert id_ not in group.node(lagging).configuration.members
        assert group.node("store-4").status().log_last > group.node(other).status().log_last
        group.network.heal()
        winner = await group.wait_leader()
        assert winner == "store-4"
        assert id_ in group.node(lagging).configuration.voters

    simulate(scenario)


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_at_every_step_of_a_replacement_loses_nothing(seed: int) -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        old = others(group, leader)[seed % 2]
        for number in range(20):
            await group.propose(b"%d" % number)
        await crash_some(group, seed)
        id_ = await group.add("store-4")
        await crash_some(group, seed + 1)
        if group.hosts["store-4"].scope is None:
            await group.start("store-4")
        await group.propose(b"while it learns")
        await crash_some(group, seed + 2)
        await group.wait_voter(id_)
        await crash_some(group, seed + 3)
        await group.remove(old, old)
        await crash_some(group, seed)
        log = await equal_logs(group)
        assert log[:20] == [b"%d" % number for number in range(20)]
        assert sorted(group.node(group.names[0]).configuration.voters) == sorted(
            group.id_of(name) for name in group.names
        )

    simulate(scenario, seed=seed, settings=SMALL)


async def crash_some(group: ChangingGroup, number: int) -> None:
    """The leader, the newest member, everybody, or nobody, and back again."""
    if number % 4 == 0:
        victims = [await group.wait_leader()]
    elif number % 4 == 1:
        victims = group.up()[-1:]
    else:
        victims = group.up() if number % 4 == 2 else []
    for name in victims:
        await group.crash(name, lose_all=number % 2 == 0)
    for name in victims:
        await group.start(name)


def test_a_joiner_knows_whom_it_joins() -> None:
    async def scenario(group: ChangingGroup) -> None:
        leader = await group.wait_leader()
        mine = group.node(leader).identity
        with pytest.raises(ConfigError, match="not in the initial cluster"):
            bootstrap("store-9", mine.token, mine.cluster_id, mine.configuration, group.rng)

    simulate(scenario)
