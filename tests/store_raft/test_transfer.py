"""Handing leadership over: nothing is lost, nobody waits for an election timeout, a failed one is undone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from chaos.sim.clock import run_simulation
from chaos.sim.raft_group import RaftGroup
from raftkube.errors import (
    DeadlineExpired,
    Indefinite,
    InvalidRequest,
    NoLeader,
    NotLeader,
    Overloaded,
    StoreError,
    Unreachable,
)

Scenario = Callable[[RaftGroup], Awaitable[None]]


def hand_over(scenario: Scenario, *, seed: int = 1, size: int = 3) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(seed, nursery, size=size)
            await group.start_all()
            await scenario(group)
            assert group.violations == []
            nursery.cancel_scope.cancel()

    run_simulation(seed, main)


def followers(group: RaftGroup, leader: str) -> list[str]:
    return [name for name in group.names if name != leader]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_named_member_leads_without_an_election_timeout(size: int) -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        for target in followers(group, leader):
            term, began = group.node(leader).role.term, trio.current_time()
            assert await group.node(leader).transfer_leadership(target) == target
            assert await group.wait_leader(among=[target]) == target
            assert trio.current_time() - began < 0.1  # virtual; an election timeout is at least 0.6 s
            assert group.node(target).role.term == term + 1  # one election, not a fight
            leader = target
        await group.propose(b"x")

    for seed in range(3):
        hand_over(scenario, seed=seed, size=size)


def test_the_leader_itself_needs_no_election() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        term = group.node(leader).role.term
        assert await group.node(leader).transfer_leadership(leader) == leader
        assert group.node(leader).role.term == term

    hand_over(scenario)


def test_no_proposal_is_lost_doubled_or_indefinite() -> None:
    """Writers go on all the time; leadership moves ten times: only definite refusals, each done once."""

    async def scenario(group: RaftGroup) -> None:
        refusals: list[StoreError] = []
        done = 0

        async def write(number: int) -> None:
            nonlocal done
            for count in range(40):
                while True:
                    leader = await group.wait_leader()
                    try:
                        await group.node(leader).propose(b"%d-%d" % (number, count))
                        break
                    except StoreError as error:
                        refusals.append(error)
                done += 1
                await trio.sleep(0.01)

        await group.wait_leader()
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(write, number)
            for _ in range(10):
                leader = await group.wait_leader()
                await group.node(leader).transfer_leadership()
        await group.wait_converged()
        assert done == 400
        for name in group.names:
            operations = group.machine(name).operations
            assert len(operations) == len(set(operations)) == 400
        assert {type(error) for error in refusals} <= {NotLeader, NoLeader}  # definite
        assert refusals

    for seed in range(3):
        hand_over(scenario, seed=seed)


def test_what_waits_is_refused_naming_the_target() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        target = followers(group, leader)[1]
        node, refused = group.node(leader), list[str]()
        group.network.cut(leader, target)  # TIMEOUT_NOW is under way for a while
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.transfer_leadership, target)
            await trio.sleep(0.01)
            node.submit([b"waits"], lambda outcome: refused.append(outcome.fields["leader"]))
            await trio.sleep(0.01)
            group.network.heal()
        assert refused == [target]
        assert b"waits" not in group.machine(target).operations

    hand_over(scenario)


def test_the_most_up_to_date_member_is_chosen() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        behind, ahead = followers(group, leader)
        group.network.cut(leader, behind)
        for number in range(20):
            await group.node(leader).propose(b"%d" % number)
        assert await group.node(leader).transfer_leadership() == ahead

    hand_over(scenario)


def test_a_silent_target_is_given_up_for_the_next_one() -> None:
    """The best target is cut off after it acknowledged all: the other one gets half the time."""

    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        first, second = followers(group, leader)
        group.network.cut(leader, second)  # of equals the last by name is asked first
        assert await group.node(leader).transfer_leadership(timeout_s=0.4) == first

    hand_over(scenario)


def test_a_target_that_does_not_win_changes_nothing() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        target = followers(group, leader)[0]
        node, outcomes = group.node(leader), list[object]()
        term = node.role.term
        group.network.cut(leader, target)
        async with trio.open_nursery() as nursery:

            async def submit_soon() -> None:
                await trio.sleep(0.1)
                node.submit([b"waited"], outcomes.append)

            nursery.start_soon(submit_soon)
            with pytest.raises(Indefinite, match="leads on"):
                await node.transfer_leadership(target, timeout_s=0.3)
            assert outcomes == []
        await node.propose(b"after")
        assert len(outcomes) == 1
        assert not isinstance(outcomes[0], StoreError)
        assert group.machine(leader).operations == [b"waited", b"after"]
        assert node.role.term == term

    hand_over(scenario)


def test_a_member_that_lags_is_not_asked() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        target = followers(group, leader)[0]
        group.network.cut(target, leader)  # its acknowledgements do not arrive
        await group.node(leader).propose(b"x")
        with pytest.raises(DeadlineExpired, match="not up to date"):
            await group.node(leader).transfer_leadership(target, timeout_s=0.3)
        assert group.node(leader).role.ready

    hand_over(scenario)


def test_refusals() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        first, second = followers(group, leader)
        with pytest.raises(InvalidRequest, match="store-9"):
            await group.node(leader).transfer_leadership("store-9")
        with pytest.raises(NotLeader):
            await group.node(first).transfer_leadership(first)
        await group.crash(first)
        await trio.sleep(0.1)
        with pytest.raises(Unreachable, match=first):
            await group.node(leader).transfer_leadership(first)
        group.network.cut(leader, second)
        async with trio.open_nursery() as nursery:

            async def stopped() -> None:
                with pytest.raises(Indefinite, match="may yet"):  # it was asked
                    await group.node(leader).transfer_leadership(second)

            nursery.start_soon(stopped)
            await trio.sleep(0.01)
            with pytest.raises(Overloaded, match=second):
                await group.node(leader).transfer_leadership(first)
            await group.node(leader).stop()

    hand_over(scenario)


def test_a_lone_member_has_nobody_to_hand_over_to() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        with pytest.raises(Unreachable, match="no other"):
            await group.node(leader).transfer_leadership()

    hand_over(scenario, size=1)
