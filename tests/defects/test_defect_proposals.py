"""Defects in what pysyncobj's clients are told, and in how often it applies. Each beside raftkube."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
import trio

from chaos.sim.groups import GroupOptions, Kind
from chaos.sim.scenario import Scenario, run
from chaos.sim.stock_group import Answer, StockGroup
from chaos.sim.stock_private import pipe_notifier
from raftkube.errors import Overloaded, StoreError
from raftkube.store.raft.proposals import Proposals
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.server.machine import StoreMachine
from raftkube.types import LogIndex
from raftkube.wire.store import Put, op_to_wire

KINDS = pytest.mark.parametrize("kind", ["stock", "raftkube"])


@KINDS
def test_a_refused_or_changed_leader_is_not_told_of_what_applies(kind: Kind) -> None:
    """Stock's follower forwards a command and says LEADER_CHANGED when it loses sight of the leader, although
    the leader has it and everybody applies it. raftkube forwards nothing: what is refused never applies."""

    async def story(scenario: Scenario) -> tuple[str | None, list[str]]:
        leader = await scenario.leader()
        follower = scenario.others(leader)[0]
        scenario.network.cut(leader, follower)
        told = scenario.propose(follower, b"forwarded")
        await trio.sleep(3.0)
        return told[0].answer, scenario.holders(b"forwarded")

    answer, holders = run(kind, story)
    if kind == "stock":
        assert answer == "unknown"
        assert len(holders) >= 2
    else:
        assert (answer, holders) == ("refused", [])


def test_a_callback_that_raises_applies_twice_in_stock() -> None:
    """E: the entry is applied, its callback raises, and the whole entry comes again with the next tick."""

    async def story(scenario: Scenario) -> list[int]:
        group = scenario.group
        assert isinstance(group, StockGroup)
        leader, calls = await scenario.leader(), []

        def callback(result: object, reason: int) -> None:
            calls.append(reason)
            if len(calls) == 1:
                raise RuntimeError("the client went away")

        with group.hosts[leader].now_world():
            group.core(leader).put(b"once", callback=callback)
        await trio.sleep(1.0)
        return [list(group.operations(name)).count(b"once") for name in (leader, *scenario.others(leader))]

    assert run("stock", story) == [2, 1, 1]


def test_a_client_that_goes_away_changes_nothing_in_raftkube() -> None:
    """E's other half: whoever waits may be cancelled at any moment; apply knows nothing of it."""

    async def story(scenario: Scenario) -> list[int]:
        leader = await scenario.leader()
        with trio.move_on_after(0.0001):
            await scenario.group.propose_on(leader, b"once")
        await scenario.write(leader, b"after")
        await trio.sleep(1.0)
        return [list(scenario.group.operations(name)).count(b"once") for name in scenario.group.names]

    assert run("raftkube", story) == [1, 1, 1]


def test_a_command_that_raises_wedges_stock() -> None:
    """E: it is tried again with every tick, for ever; nothing behind it is applied or answered."""

    async def story(scenario: Scenario) -> tuple[list[int], int | None]:
        group = scenario.group
        assert isinstance(group, StockGroup)
        leader, bad = await scenario.leader(), Answer()
        with group.hosts[leader].now_world():
            group.core(leader).fail(b"bad", callback=bad)
        told = scenario.propose(leader, b"after")
        await trio.sleep(10.0)
        assert told[0].answer is None
        assert all("cannot be applied" in failure for failure in group.failures())
        return [len(group.operations(name)) for name in group.names], bad.reason

    assert run("stock", story) == ([0, 0, 0], None)


def test_an_operation_that_makes_no_sense_is_a_result_in_raftkube() -> None:
    """E's mend: apply never raises, errors are results, and what follows is applied."""
    machine = StoreMachine()
    good = op_to_wire(Put(b"key", b"value"))
    results = machine.apply(LogIndex(2), msgpack.packb([[9999], "nonsense", [], good]))
    assert [isinstance(result, StoreError) for result in results] == [True, True, True, False]
    assert machine.applied_index == 2
    assert machine.core.revision == 2


def test_the_65537th_command_raises_in_stock_and_stays_queued() -> None:
    """Stock without batches wakes its poller by a byte in a pipe for every command; when the pipe is full
    the call raises, and the command is applied all the same."""

    async def story(scenario: Scenario) -> tuple[int, int]:
        group = scenario.group
        assert isinstance(group, StockGroup)
        core, calls = group.core("store-1"), 0
        with group.hosts["store-1"].now_world(), contextlib.suppress(BlockingIOError):
            while calls < 70_000:
                calls += 1
                core.put(b"x")
        return calls, group.view("store-1").queued

    with pipe_notifier():
        raised_at, queued = run("stock", story, GroupOptions(use_batch=False))
    assert raised_at == 65_537
    assert queued == raised_at  # the one that raised is in the queue


def test_a_full_queue_refuses_in_raftkube() -> None:
    proposals = Proposals(RaftSettings(queue_operations_max=100))
    for _ in range(100):
        proposals.add([b"x"], 0.0)
    with pytest.raises(Overloaded):
        proposals.add([b"refused"], 0.0)
    command, *_ = proposals.take()
    assert b"refused" not in command
