"""Defects of pysyncobj's log: what it cuts, what it loses, how slowly it repairs. Each beside raftkube."""

from __future__ import annotations

import pytest

from chaos.sim.fuzz_faults import end_mid_write
from chaos.sim.groups import GroupOptions, Kind
from chaos.sim.scenario import Scenario, run
from raftkube.store.raft import proposals

KINDS = pytest.mark.parametrize("kind", ["stock", "raftkube"])


@KINDS
def test_a_resend_after_a_lost_message_erases_nothing(kind: Kind) -> None:
    """B, on links in order: one connection breaks while a message is under way, and the round trip is longer
    than the period of appends. Every append until the first refusal arrives is refused; each refusal rewinds
    the leader; the resend makes stock's follower cut what it had acknowledged, and then the leader dies."""
    twelve = [b"acked-%d" % number + b"x" * 40 for number in range(12)]

    async def story(scenario: Scenario) -> list[bytes]:
        group = scenario.group
        leader = await scenario.leader()
        follower, lagging = scenario.others(leader)
        scenario.cut_off(lagging)
        told = scenario.propose(leader, *twelve)
        await scenario.until(lambda: group.last_index(leader) > group.last_index(follower), timeout_s=1.0)
        await scenario.until(lambda: False, timeout_s=0.02)
        scenario.network.reset(leader, follower)

        def cut() -> bool:
            acknowledged = all(answer.answer == "acknowledged" for answer in told)
            return acknowledged and group.last_index(follower) < group.commit_index(leader)

        erased = await scenario.until(cut, timeout_s=3.0)
        assert all(answer.answer == "acknowledged" for answer in told)
        assert erased == (kind == "stock")
        await group.kill(leader)
        scenario.network.heal()
        new = await scenario.leader([follower, lagging])
        await scenario.write(new, b"later")
        await scenario.until(lambda: len(scenario.holders(b"later")) == 2)
        return [operation for operation in twelve if len(scenario.holders(operation)) < 2]

    options = GroupOptions(
        delay_s=(0.04, 0.05), heartbeat_s=0.01, stop_leading_s=30.0, tick_s=0.005, use_batch=True,
        batch_bytes=200,
    )  # fmt: skip
    lost = run(kind, story, options)
    assert bool(lost) == (kind == "stock")


@KINDS
def test_a_late_heartbeat_erases_nothing(kind: Kind) -> None:
    """B, out of order: a heartbeat waits in the receive buffer of a connection whose other end is gone, and
    is read after what the newer connection brought."""

    async def story(scenario: Scenario) -> list[str]:
        group, leader, follower, third = scenario.group, "store-3", "store-1", "store-2"
        await scenario.lead(leader)  # the higher name dials in stock: its end can break alone
        scenario.cut_off(third)
        scenario.network.stall(leader, follower)
        await scenario.until(lambda: False, timeout_s=0.15)  # a heartbeat is under way
        scenario.network.break_end(leader, follower)
        await scenario.until(lambda: False, timeout_s=0.3)  # a new connection
        await scenario.write(leader, b"acked")
        scenario.network.unstall(leader, follower)
        erased = await scenario.until(
            lambda: group.last_index(follower) < group.commit_index(leader), timeout_s=1.0
        )
        assert erased == (kind == "stock")
        await group.kill(leader)
        scenario.network.heal()
        await scenario.write(await scenario.leader([follower, third]), b"later")
        return scenario.holders(b"acked")

    assert bool(run(kind, story)) == (kind == "raftkube")


@KINDS
def test_a_kill_while_the_log_is_compacted_loses_nothing(kind: Kind) -> None:
    """C: `FileJournal.deleteEntriesTo` clears the file and adds what stays anew; a SIGKILL at each of the
    disk's steps in turn. One member, so that its disk is all there is."""

    async def story(scenario: Scenario, steps: int) -> int:
        group, name = scenario.group, "store-1"
        await scenario.leader()
        writes = [b"%d" % number for number in range(45)]
        await scenario.write(name, *writes[:30])
        group.compact(name)
        await scenario.until(lambda: False, timeout_s=0.1)
        told = scenario.propose(name, *writes[30:])  # while stock's child writes the dump
        await scenario.until(lambda: False, timeout_s=0.15)
        await end_mid_write(group, name, steps=steps, lose_all=None)
        acknowledged = writes[:30] + [
            w for w, t in zip(writes[30:], told, strict=True) if t.answer == "acknowledged"
        ]
        assert len(acknowledged) > 30
        await group.start(name)
        await scenario.leader()
        return len([write for write in acknowledged if write not in group.operations(name)])

    options = GroupOptions(size=1, dump_s=0.3, snapshot_log_entries=40)
    lost = [run(kind, lambda s, n=steps: story(s, n), options) for steps in range(1, 24, 2)]
    assert (max(lost) > 0) == (kind == "stock")


@KINDS
def test_a_long_conflict_is_repaired_in_a_few_rounds(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock's leader goes back by one entry for each period (0.1 s); the refusal could say where to begin."""
    monkeypatch.setattr(proposals, "_GATHERED", 1)  # an entry for each write, however many are on their way

    async def story(scenario: Scenario) -> float:
        group = scenario.group
        old = await scenario.leader()
        rest = scenario.others(old)
        scenario.cut_off(old, told=False)  # so the new leader sends on, into a connection that will break
        for number in range(100):
            scenario.propose(old, b"divergent-%d" % number)
            await scenario.until(lambda: False, timeout_s=0.002)
        assert group.last_index(old) > 100
        new = await scenario.leader(rest)
        for number in range(120):
            scenario.propose(new, b"new-%d" % number)
            await scenario.until(lambda: False, timeout_s=0.002)
        assert await scenario.until(lambda: group.applied_index(new) > 120, timeout_s=5.0)
        scenario.cut_off(old)
        scenario.network.heal()
        for periods in range(400):
            if group.applied_index(old) >= group.applied_index(new):
                return periods
            await scenario.until(lambda: False, timeout_s=0.1)
        raise AssertionError("never repaired")

    options = GroupOptions(
        entries_in_flight_max=1000, snapshot_log_entries=10_000, stop_leading_s=5.0, use_batch=True
    )
    periods = run(kind, story, options)
    print(f"{periods:.0f} periods")
    assert (periods > 80) if kind == "stock" else (periods <= 10)


@KINDS
def test_a_large_command_arrives_whole(kind: Kind) -> None:
    """Stock sends a command above the batch size in parts, and takes the last but one for the last when the
    command ends there but its envelope does not."""

    async def story(scenario: Scenario) -> list[str]:
        leader = await scenario.leader()
        for size in range(1900, 2060, 8):  # with the envelope some of them span three parts of 1,024 bytes
            scenario.propose(leader, bytes(size))
        await scenario.until(lambda: False, timeout_s=5.0)
        return scenario.group.failures()

    failures = run(kind, story, GroupOptions(batch_bytes=1024, snapshot_log_entries=10_000))
    assert any("EOFError" in failure for failure in failures) == (kind == "stock")  # half a pickle
    assert kind == "stock" or failures == []
