"""Defects of pysyncobj's snapshots and of what happens around them. Each beside raftkube."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import trio

from chaos.sim.groups import GroupOptions, Kind
from chaos.sim.guarded_group import GuardedGroup
from chaos.sim.scenario import Scenario, Told, run
from chaos.sim.stock_group import StockGroup
from raftkube.rng import seeded_rng
from raftkube.store.raft import messages as msg

KINDS = pytest.mark.parametrize("kind", ["stock", "raftkube"])


async def _deposed_and_overtaken(scenario: Scenario) -> tuple[str, list[Told]]:
    """A leader is cut off with five proposals in its log; the others go on and compact; it comes back and
    needs a snapshot. The old leader, and what was said of the five."""
    old = await scenario.leader()
    await scenario.write(old, b"base")
    scenario.cut_off(old)
    told = scenario.propose(old, *(b"lost-%d" % number for number in range(5)))
    new = await scenario.leader(scenario.others(old))
    rng = seeded_rng(1)
    await scenario.write(new, *(b"new-%d" % number + rng.randbytes(4096) for number in range(60)))
    scenario.group.compact(new)
    await scenario.until(lambda: False, timeout_s=1.0)
    scenario.network.heal()
    await scenario.until(lambda: False, timeout_s=8.0)
    assert scenario.group.applied_index(old) == scenario.group.applied_index(new)
    return old, told


@KINDS
def test_no_success_for_what_a_snapshot_replaces(kind: Kind) -> None:
    """A: while a snapshot arrives, in parts, stock commits up to the leader's index whatever its own log
    holds, and calls five overwritten proposals a success."""

    async def story(scenario: Scenario) -> list[str | None]:
        _, told = await _deposed_and_overtaken(scenario)
        assert [name for number in range(5) for name in scenario.holders(b"lost-%d" % number)] == []
        return [answer.answer for answer in told]

    answers = run(kind, story, GroupOptions(delay_s=(0.001, 0.005), snapshot_part_bytes=4096))
    assert answers == (["acknowledged"] * 5 if kind == "stock" else ["unknown"] * 5)


@KINDS
def test_what_a_snapshot_replaces_is_answered(kind: Kind) -> None:
    """The same, with a snapshot in one part: stock never calls back at all."""

    async def story(scenario: Scenario) -> list[str | None]:
        return [answer.answer for answer in (await _deposed_and_overtaken(scenario))[1]]

    answers = run(kind, story, GroupOptions(delay_s=(0.001, 0.005), snapshot_part_bytes=1 << 20))
    assert answers == ([None] * 5 if kind == "stock" else ["unknown"] * 5)


@KINDS
def test_a_journal_without_a_dump_file_keeps_everything(kind: Kind) -> None:
    """Stock with `journalFile` and without `fullDumpFile` compacts into memory; a restart finds nothing."""

    async def story(scenario: Scenario) -> int:
        await scenario.write(await scenario.leader(), *(b"%d" % number for number in range(100)))
        for name in scenario.group.names:
            scenario.group.compact(name)
        await scenario.until(lambda: False, timeout_s=2.0)
        await scenario.restart_all()
        await scenario.until(lambda: bool(scenario.group.leaders()), timeout_s=3.0)
        await scenario.until(lambda: False, timeout_s=0.1)
        return max(len(scenario.group.operations(name)) for name in scenario.group.names)

    kept = run(kind, story, GroupOptions(dump_file=False))
    assert kept == (0 if kind == "stock" else 100)


@KINDS
def test_a_dump_in_progress_makes_no_flood(kind: Kind) -> None:
    """While stock's child writes a dump, its leader sends "none yet" to whoever needs it, in a loop that only
    the period ends."""

    async def story(scenario: Scenario) -> float:
        group, network = scenario.group, scenario.network
        leader = await scenario.leader()
        laggard = scenario.others(leader)[0]
        await group.kill(laggard)
        await scenario.write(leader, *(b"%d" % number for number in range(60)))
        group.compact(leader)
        await scenario.until(lambda: False, timeout_s=1.0)
        await group.start(laggard)
        await scenario.write(leader, b"one more")
        before = network.sent_count
        group.compact(leader)
        await scenario.until(lambda: False, timeout_s=0.4)
        return network.sent_count - before

    sent = run(kind, story, GroupOptions(dump_s=0.4))
    assert (sent > 500) if kind == "stock" else (sent < 100)


@KINDS
def test_power_loss_after_a_compaction_loses_nothing(kind: Kind) -> None:
    """Stock renames a dump that was never synced over the good one and cuts the log: the name survives a
    power loss, the bytes need not, and what cannot be loaded is passed over in silence."""

    async def story(scenario: Scenario) -> int:
        group = scenario.group
        await scenario.write(await scenario.leader(), *(b"%d" % number for number in range(60)))
        for name in group.names:
            group.compact(name)
        await scenario.until(lambda: False, timeout_s=1.0)
        for name in group.names:
            await group.crash(name)
        try:
            await group.start_all()
            await scenario.write(await scenario.leader(timeout_s=10.0), b"after", timeout_s=10.0)
        except Exception:
            if kind == "raftkube":
                raise
            return 60  # it does not even start, or nobody leads
        await scenario.until(lambda: False, timeout_s=1.0)
        return 61 - min(len(group.operations(name)) for name in group.names)

    lost = [run(kind, story, seed=seed) for seed in range(4)]
    assert (min(lost) > 0) if kind == "stock" else (lost == [0, 0, 0, 0])


def _messages_to(scenario: Scenario, name: str, *messages: Any) -> list[Any]:
    """Messages of "store-2" for `name`, which is cut off; what it sends from now on."""
    group, sent = scenario.group, []
    if isinstance(group, StockGroup):
        transport = group.hosts[name].transport
        assert transport is not None
        transport.send = lambda node, message: sent.append(message) or True  # type: ignore[method-assign]
        for message in messages:
            group.hosts[name].received("store-2", message)
    else:
        assert isinstance(group, GuardedGroup)
        peers = group.node(name)._peers
        peers.send = lambda to, message: sent.append(message)  # type: ignore[method-assign]
        for message in messages:
            group.node(name).received("store-2", [message])
    return sent


_TERM = 50
_LOG = [(b"\x01", index, _TERM) for index in range(3, 102)]  # nothing but first entries of a term


def _append(kind: Kind) -> Any:
    """Everything, from entry 2, which everybody holds, on."""
    if kind == "stock":
        return {"type": "append_entries", "term": _TERM, "commit_index": 101, "prevLogIdx": 2,
                "prevLogTerm": 1, "entries": _LOG}  # fmt: skip
    return [msg.APPEND, _TERM, 101, 2, 1, [list(entry) for entry in _LOG]]


def _snapshot(kind: Kind, data: bytes) -> list[Any]:
    """A snapshot up to entry 60."""
    if kind == "stock":
        head = {"type": "append_entries", "term": _TERM, "commit_index": 101}
        return [{**head, "serialized": (data, True, False)}, {**head, "serialized": (b"", False, True)}]
    return [[msg.SNAPSHOT, _TERM, 60, _TERM, 0, data, True]]


@KINDS
def test_a_snapshot_and_a_compaction_do_not_empty_the_log(kind: Kind) -> None:
    """Stock installs a snapshot older than its log, in the log's place; the compaction that it had begun
    before then removes what is left, and every tick fails from there on."""

    async def story(scenario: Scenario) -> tuple[int, list[str]]:
        group, name = scenario.group, "store-1"
        await scenario.lead("store-3")
        assert group.last_index(name) == 2
        scenario.cut_off(name)
        _messages_to(scenario, name, _append(kind))
        await trio.sleep(0.1)
        group.compact(name)
        await trio.sleep(0.1)
        older = pickle.dumps(([], _LOG[58], _LOG[57], set()))
        _messages_to(scenario, name, *_snapshot(kind, older))
        await trio.sleep(1.0)
        last = group.last_index(name)
        _messages_to(scenario, name, _append(kind))
        return last, group.failures()

    last, failures = run(kind, story, GroupOptions(dump_s=0.4), seed=_seed_led_by_store_3(kind))
    assert last == (0 if kind == "stock" else 101)
    assert any("IndexError" in failure for failure in failures) == (kind == "stock")


def _seed_led_by_store_3(kind: Kind) -> int:
    """A seed whose first leader is store-3, so that the logs hold exactly two entries."""

    async def first(scenario: Scenario) -> str:
        return await scenario.leader()

    return next(seed for seed in range(1, 50) if run(kind, first, seed=seed) == "store-3")


@KINDS
def test_a_snapshot_that_cannot_be_loaded_is_not_acknowledged(kind: Kind) -> None:
    """Stock passes over every error of a load, and says that it succeeded."""

    async def story(scenario: Scenario) -> list[Any]:
        await scenario.lead("store-3")
        scenario.cut_off("store-1")
        sent = _messages_to(scenario, "store-1", *_snapshot(kind, b"no snapshot at all"))
        await trio.sleep(0.5)
        return sent

    sent = run(kind, story, seed=_seed_led_by_store_3(kind))
    if kind == "stock":
        assert {"type": "next_node_idx", "next_node_idx": 3, "reset": False, "success": True} in sent
    else:
        assert [message for message in sent if message[0] == msg.SNAPSHOT_OK and message[-1]] == []
