"""Three members under the fakes: elections, proposals, crashes with unsynced loss, partitions, reads."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio

from chaos.sim.clock import run_simulation
from chaos.sim.raft_group import RaftGroup
from raftkube.errors import ConfigError, DiskFailed, LeadershipLost, NoLeader, NotLeader, Stopped, StoreError
from raftkube.store.raft import mutants
from raftkube.store.raft.settings import RaftSettings

Scenario = Callable[[RaftGroup], Awaitable[None]]


def simulate(
    scenario: Scenario, *, seed: int = 1, size: int = 3, settings: RaftSettings | None = None
) -> RaftGroup:
    """Run `scenario` on a started group; no invariant may have been broken in it."""
    made: list[RaftGroup] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(seed, nursery, size=size, settings=settings)
            made.append(group)
            await group.start_all()
            await scenario(group)
            nursery.cancel_scope.cancel()

    run_simulation(seed, main)
    assert made[0].violations == []
    return made[0]


def others(group: RaftGroup, name: str) -> list[str]:
    return [other for other in group.names if other != name]


def test_elects_one_leader_and_applies_everywhere() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(group.node(leader).propose, b"%d" % number)
        await group.wait_converged()
        for name in group.names:
            assert sorted(group.machine(name).operations) == sorted(b"%d" % n for n in range(300))
        # Group commit: three hundred callers, a handful of entries.
        assert group.node(leader).status().log_last < 20

    simulate(scenario)


def test_each_caller_gets_its_own_result() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        results: dict[bytes, tuple[int, int]] = {}

        async def one(operation: bytes) -> None:
            results[operation] = await group.node(leader).propose(operation)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, b"%d" % number)
        for operation, (_, position) in results.items():
            assert group.machine(leader).operations[position - 1] == operation

    simulate(scenario)


def test_a_single_member_commits_alone() -> None:
    async def scenario(group: RaftGroup) -> None:
        await group.wait_leader()
        assert await group.node("store-1").propose(b"x") == (3, 1)
        await group.node("store-1").read_index()
        await group.crash("store-1", lose_all=True)
        await group.start("store-1")
        await group.wait_leader()
        assert group.machine("store-1").operations == [b"x"]

    simulate(scenario, size=1)


def test_only_the_leader_takes_proposals() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        follower = others(group, leader)[0]
        with pytest.raises(NotLeader) as caught:
            await group.node(follower).propose(b"x")
        assert caught.value.fields["leader"] == leader

    simulate(scenario)


def test_without_a_leader_nothing_is_proposed() -> None:
    async def scenario(group: RaftGroup) -> None:
        with pytest.raises(NoLeader):
            await group.node("store-1").propose(b"x")

    simulate(scenario)


@pytest.mark.parametrize("lose_all", [True, False], ids=["all-unsynced-lost", "some-unsynced-survives"])
def test_acknowledged_operations_survive_power_loss_of_all(lose_all: bool) -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        for number in range(20):
            await group.node(leader).propose(b"%d" % number)
        for name in group.names:
            await group.crash(name, lose_all=lose_all)
        await group.start_all()
        await group.propose(b"after")
        await group.wait_converged()
        for name in group.names:
            assert group.machine(name).operations == [b"%d" % n for n in range(20)] + [b"after"]

    simulate(scenario)


def test_a_dead_leader_is_replaced_at_once_when_its_connections_reset() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        began = trio.current_time()
        await group.crash(leader)
        await group.wait_leader()
        assert trio.current_time() - began < 0.4  # virtual time: below the election timeout of 0.6 s
        await group.propose(b"x")

    for seed in range(5):
        simulate(scenario, seed=seed)


def test_an_isolated_leader_steps_down_and_its_callers_learn_it() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        group.network.partition({leader}, set(others(group, leader)))
        with pytest.raises(LeadershipLost):
            await group.node(leader).propose(b"lost")
        assert group.node(leader).role.role != "leader"
        new = await group.wait_leader(among=others(group, leader))
        await group.node(new).propose(b"kept")
        group.network.heal()
        await group.wait_converged()
        for name in group.names:
            assert group.machine(name).operations == [b"kept"]

    simulate(scenario)


def test_a_half_isolated_follower_does_not_raise_the_term() -> None:
    """Pre-vote: it hears nobody, others hear it; its return deposes nobody."""

    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        term = group.node(leader).status().term
        follower = others(group, leader)[0]
        for name in others(group, follower):
            group.network.cut(name, follower)
        await trio.sleep(20)
        group.network.heal()
        await group.wait_converged()
        assert group.node(leader).status().term == term
        assert group.node(leader).leader == leader

    simulate(scenario)


def test_one_broken_link_does_not_depose_the_leader() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        term = group.node(leader).status().term
        follower = others(group, leader)[0]
        group.network.partition({leader}, {follower})
        for number in range(20):
            await group.node(leader).propose(b"%d" % number)
            await trio.sleep(0.5)
        assert group.node(leader).status().term == term
        group.network.heal()
        await group.wait_converged()

    simulate(scenario)


def test_a_member_ahead_in_term_is_not_locked_out() -> None:
    """Its vote raised its term; the leader of the older term must learn that, or it never hears it again."""

    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        follower = others(group, leader)[0]
        replica = group.node(follower)._replica
        assert replica is not None
        with replica._world:
            replica.core.adopt_term(replica.core.term + 5)
        await group.propose(b"x")
        await group.wait_converged()
        assert group.machine(follower).operations == [b"x"]

    simulate(scenario)


def test_reads_wait_for_everything_acknowledged_before() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        for number in range(30):
            await group.node(leader).propose(b"%d" % number)
            for name in group.names:
                await group.node(name).read_index()
                assert len(group.machine(name).operations) >= number + 1

    simulate(scenario)


def test_a_deposed_leader_serves_no_stale_read() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        group.network.partition({leader}, set(others(group, leader)))
        finished: list[float] = []

        async def read() -> None:
            await group.node(leader).read_index()
            finished.append(trio.current_time())
            assert b"new" in group.machine(leader).operations

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            new = await group.wait_leader(among=others(group, leader))
            await group.node(new).propose(b"new")
            assert finished == []
            group.network.heal()
        assert finished

    simulate(scenario)


def test_a_read_without_a_quorum_fails_in_time() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        group.network.partition(*({name} for name in group.names))
        began = trio.current_time()
        with pytest.raises(NoLeader):
            await group.node(leader).read_index()
        assert trio.current_time() - began == pytest.approx(RaftSettings().read_timeout_s, abs=0.2)

    simulate(scenario)


def test_many_reads_share_one_round() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        replica = group.node(leader)._replica
        assert replica is not None
        before = replica.reads._round
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(group.node(leader).read_index)
        assert replica.reads._round - before <= 2

    simulate(scenario)


def test_a_follower_far_behind_gets_a_snapshot() -> None:
    settings = RaftSettings(snapshot_log_entries=50, retain_entries=10, snapshot_chunk_bytes=300)

    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        late = others(group, leader)[0]
        await group.crash(late)
        for number in range(200):
            await group.node(leader).propose(b"%d" % number)
        assert group.node(leader).status().log_first > 100
        await group.start(late)
        await group.wait_converged()
        assert group.machine(late).operations == [b"%d" % n for n in range(200)]
        assert group.node(late).status().snapshot_index > 100
        for name in group.names:  # and a restart from snapshot and log gives the same state
            await group.crash(name)
        await group.start_all()
        await group.propose(b"after")
        await group.wait_converged()
        for name in group.names:
            assert group.machine(name).operations == [b"%d" % n for n in range(200)] + [b"after"]

    simulate(scenario, settings=settings)


def test_a_failed_sync_stops_the_member_and_loses_nothing() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.node(leader).propose(b"before")
        host = group.hosts[leader]
        host.disk.fail_next["sync"] = errno.EIO
        with pytest.raises(LeadershipLost):
            await group.node(leader).propose(b"unknown")
        await host.ended.wait()
        assert isinstance(host.error, DiskFailed)
        with pytest.raises(Stopped):
            await group.node(leader).propose(b"never")
        assert group.node(leader).status().failed is not None
        await group.propose(b"after")
        survivor = await group.wait_leader()
        assert [op for op in group.machine(survivor).operations if op != b"unknown"] == [b"before", b"after"]

    simulate(scenario)


def test_a_full_disk_stops_the_member() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        follower = others(group, leader)[0]
        group.hosts[follower].disk.fail_next["write"] = errno.ENOSPC
        await group.node(leader).propose(b"x")
        await group.hosts[follower].ended.wait()
        assert isinstance(group.hosts[follower].error, DiskFailed)
        await group.node(leader).propose(b"y")

    simulate(scenario)


def test_stopping_is_graceful_and_final() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.node(leader).propose(b"x")
        await group.stop(leader)
        assert group.hosts[leader].error is None
        with pytest.raises(Stopped):
            await group.node(leader).read_index()
        await group.start(leader)
        await group.propose(b"y")
        await group.wait_converged()
        assert group.machine(leader).operations == [b"x", b"y"]

    simulate(scenario)


def test_cancelling_a_caller_does_not_withdraw_the_proposal() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        with trio.CancelScope() as scope:
            scope.cancel()
            await group.node(leader).propose(b"x")
        assert scope.cancelled_caught
        await group.propose(b"y")
        assert group.machine(leader).operations == [b"x", b"y"]

    simulate(scenario)


def test_the_mutant_acknowledges_what_a_crash_then_loses() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        await group.node(leader).propose(b"acknowledged")
        await group.crash(leader)
        await group.propose(b"after")
        new = await group.wait_leader()
        assert b"acknowledged" not in group.machine(new).operations

    simulate(scenario, settings=RaftSettings(mutant="ack-before-replicate"))


def test_unknown_mutants_and_taken_ports_are_refused() -> None:
    with pytest.raises(ConfigError, match="no-such"):
        mutants.find("no-such")
    assert mutants.find(None) == mutants.Mutant()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(1, nursery)
            await group.start("store-1")
            with pytest.raises(ConfigError, match="already in use"):
                await group.start("store-1")
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


def test_role_changes_are_announced() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        role = group.node(leader).role
        assert (role.role, role.ready) == ("leader", True)
        group.network.partition({leader}, set(others(group, leader)))
        changed = await group.node(leader).wait_role_change(role)
        assert changed.role == "follower"
        assert not changed.ready

    simulate(scenario)


def test_errors_of_the_store_are_told_apart() -> None:
    """Definite before the log, indefinite in it: the partition's victims say which."""

    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        group.network.partition({leader}, set(others(group, leader)))
        outcomes: list[StoreError] = []

        async def one(number: int) -> None:
            try:
                await group.node(leader).propose(b"%d" % number)
            except StoreError as error:
                outcomes.append(error)

        async with trio.open_nursery() as nursery:
            for number in range(6_000):
                nursery.start_soon(one, number)
        definite = sum(error.definite for error in outcomes)
        assert len(outcomes) == 6_000
        assert 0 < definite < 6_000
        assert group.machine(leader).operations == []

    simulate(scenario)
