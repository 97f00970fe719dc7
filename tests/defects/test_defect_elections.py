"""Defects of pysyncobj's elections, acknowledgements and reads. Each beside raftkube."""

from __future__ import annotations

import pytest
import trio

from chaos.sim.groups import GroupOptions, Kind
from chaos.sim.scenario import Scenario, run
from raftkube.errors import StoreError

KINDS = pytest.mark.parametrize("kind", ["stock", "raftkube"])


@KINDS
def test_an_acknowledgement_of_an_earlier_term_commits_nothing(kind: Kind) -> None:
    """D: stock's acknowledgement carries no term. One of the leader's first term waits in an old connection
    and arrives in its next term, when the follower's log holds something else."""

    async def story(scenario: Scenario) -> tuple[str | None, int]:
        group, network = scenario.group, scenario.network
        leader, follower, a, b, c = "store-1", "store-5", "store-2", "store-3", "store-4"
        await scenario.lead(leader)
        scenario.cut_off(leader, follower)
        network.stall(follower, leader)
        scenario.propose(leader, *(b"old-%d" % number for number in range(10)))
        await scenario.until(lambda: group.last_index(follower) > 8, timeout_s=0.5)
        network.break_end(follower, leader)  # it dials again; what it said before is still under way
        await trio.sleep(0.25)
        group.pause(follower)
        scenario.cut_off(leader, told=False)
        await scenario.leader([a, b, c])  # of a later term, with a shorter log
        network.heal()
        network.partition({a}, {b}, {c})  # a star: only the one in the middle can win
        assert await scenario.until(lambda: group.leaders() == [leader])
        await trio.sleep(0.1)
        assert group.last_index(leader) < 12
        network.partition({leader, a}, {b, c})
        told = scenario.propose(leader, *(b"new-%d" % number for number in range(4)))
        await trio.sleep(0.1)
        assert told[0].answer is None
        network.unstall(follower, leader)
        await trio.sleep(0.1)
        return told[0].answer, len(
            [n for n in (leader, a, b, c) if group.last_index(n) >= group.last_index(leader)]
        )

    answer, holders = run(kind, story, GroupOptions(size=5, delay_s=(0.001, 0.003)))
    assert holders <= 2  # of five
    assert answer == ("acknowledged" if kind == "stock" else None)


@KINDS
def test_a_member_that_comes_and_goes_deposes_nobody(kind: Kind) -> None:
    """No pre-vote: cut off for two seconds a stock member raises its term, and on its return the group's."""

    async def story(scenario: Scenario) -> tuple[int, list[str]]:
        leader = await scenario.leader()
        restless = scenario.others(leader)[0]
        before = scenario.group.term(leader)
        for _ in range(8):
            scenario.cut_off(restless, told=False)
            await trio.sleep(2.0)
            scenario.network.heal()
            await trio.sleep(1.5)
        terms = max(scenario.group.term(name) for name in scenario.group.names) - before
        return terms, [leader] if scenario.group.leaders() == [leader] else []

    burned, same = run(kind, story)
    assert (burned >= 8) if kind == "stock" else (burned == 0)
    assert kind == "stock" or same


@KINDS
def test_a_leader_without_a_majority_serves_no_read(kind: Kind) -> None:
    """With stock's default a leader believes in itself for 30 s, and whoever reads from it reads the past."""

    async def story(scenario: Scenario) -> tuple[list[str], bool]:
        group = scenario.group
        old = await scenario.leader()
        await scenario.write(old, b"1")
        scenario.cut_off(old)
        new = await scenario.leader(scenario.others(old))
        await scenario.write(new, b"2")
        await trio.sleep(5.0)
        stale = False
        try:
            with trio.fail_after(10.0):
                stale = await group.read_on(old) < group.applied_index(new)
        except StoreError:
            pass
        return group.leaders(), stale

    leaders, stale = run(kind, story, GroupOptions(stop_leading_s=30.0))
    assert (len(leaders), stale) == ((2, True) if kind == "stock" else (1, False))


@KINDS
def test_a_deposed_leader_that_believes_in_itself_serves_no_read(kind: Kind) -> None:
    """Even with the shortest timeout: the others saw the leader's connections break and elected at once."""

    async def story(scenario: Scenario) -> int:
        group, stale = scenario.group, 0
        old = await scenario.leader()
        scenario.cut_off(old)
        written = 0
        for _ in range(200):
            others = [name for name in group.leaders() if name != old]
            if others and not written:
                await scenario.write(others[0], b"new")
                written = group.applied_index(others[0])
            with trio.move_on_after(0.005):
                try:
                    stale += await group.read_on(old) < written
                except StoreError:
                    pass
            await trio.sleep(0.005)
        assert written
        return stale

    options = GroupOptions(stop_leading_s=1.2)
    assert (run(kind, story, options) > 0) == (kind == "stock")


@KINDS
def test_a_vote_is_given_once_whatever_the_power_does(kind: Kind) -> None:
    """Term and vote are stored by stock without a sync: after a power loss it votes again in the same term,
    and a torn file reads as "term 0, no vote"."""

    async def story(scenario: Scenario) -> tuple[int, int]:
        group = scenario.group
        leader = await scenario.leader()
        term = group.term(leader)
        for name in group.names:
            await group.crash(name, lose_all=True)
        scenario.network.partition(*({name} for name in group.names))
        await group.start_all()
        return term, min(group.term(name) for name in group.names)

    before, after = run(kind, story)
    assert (after < before) if kind == "stock" else (after >= before)


@KINDS
def test_two_never_lead_one_term(kind: Kind) -> None:
    """What the forgotten vote is good for: a voter votes for one, loses its power, and votes for the other,
    which knows nothing of the first; both lead the same term."""

    async def story(scenario: Scenario) -> bool:
        group, network = scenario.group, scenario.network
        first = await scenario.leader()
        voter, second = scenario.others(first)
        scenario.cut_off(second)
        await scenario.write(first, b"first")
        await group.crash(second, lose_all=True)
        scenario.cut_off(first)
        await group.crash(voter, lose_all=True)
        network.heal()
        scenario.cut_off(first)
        await group.start(second)
        await group.start(voter)
        await scenario.until(lambda: any(name != first for name in group.leaders()), timeout_s=5.0)
        await trio.sleep(0.5)
        return any("both lead" in sentence for sentence in group.violations)

    assert any(run(kind, story, seed=seed) for seed in range(6)) == (kind == "stock")
