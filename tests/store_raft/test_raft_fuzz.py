"""Random faults from a seed: nothing acknowledged is lost, logs agree, one leader a term, all converge.

A failing seed is replayed by `pytest tests/store_raft/test_raft_fuzz.py -k "fuzz and <seed>]"`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import trio

from chaos.sim.clock import run_simulation
from chaos.sim.raft_group import RaftGroup
from raftkube.errors import StoreError
from raftkube.store.raft.settings import RaftSettings

SIMULATED_S = 20.0
SETTINGS = RaftSettings(
    snapshot_log_entries=40, retain_entries=8, snapshot_chunk_bytes=500, segment_bytes=16 * 1024
)


class Fuzz:
    """Clients that propose unique operations wherever a leader is, and a nemesis."""

    def __init__(self, seed: int, group: RaftGroup) -> None:
        self.group = group
        self.rng = Random(f"fuzz-{seed}")
        self.acknowledged: dict[bytes, int] = {}
        self.refused: set[bytes] = set()
        self.proposed = 0
        self.faults: dict[str, int] = {}

    async def client(self, number: int) -> None:
        count = 0
        while True:
            await trio.sleep(self.rng.uniform(0.0, 0.1))
            running = self.group.up()
            if not running:
                continue
            node = self.group.node(self.rng.choice(running))
            operation = b"%d-%d" % (number, count)
            count += 1
            try:
                if self.rng.random() < 0.2:
                    await self.read(node_name=self.rng.choice(running))
                self.proposed += 1
                index, _ = await node.propose(operation)
                self.acknowledged[operation] = index
            except StoreError as error:
                if error.definite:
                    self.refused.add(operation)

    async def read(self, node_name: str) -> None:
        """A linearizable read sees all that was acknowledged before it began."""
        before = set(self.acknowledged)
        machine = self.group.machine(node_name)
        await self.group.node(node_name).read_index()
        missing = before - set(machine.operations)
        if missing:
            self.group.violations.append(f"a read on {node_name} misses {sorted(missing)[:3]}")

    async def nemesis(self) -> None:
        while True:
            await trio.sleep(self.rng.uniform(0.05, 1.0))
            fault = self.rng.choice(
                ["isolate", "one_way", "reset", "crash", "crash_all", "stop"] + ["heal", "restart"] * 3
            )
            self.faults[fault] = self.faults.get(fault, 0) + 1
            await getattr(self, fault)()

    async def pauses(self) -> None:
        """Members, leaders above all, stop as by SIGSTOP: messages and time pass them by."""
        while True:
            await trio.sleep(self.rng.uniform(0.1, 1.5))
            running = self.group.up()
            leaders = [name for name in running if self.group.node(name).role.role == "leader"]
            if running:
                await self.pause(self.rng.choice(leaders if self.rng.random() < 0.6 and leaders else running))

    async def pause(self, name: str) -> None:
        node, clock = self.group.node(name), self.group.hosts[name].clock
        replica = node._replica
        if replica is None:
            return
        self.faults["pause"] = self.faults.get("pause", 0) + 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(node, "_pump", lambda: None)
            patch.setattr(replica, "next_deadline", lambda: clock.monotonic() + 0.05)
            await trio.sleep(self.rng.choice([0.1, 0.4, 0.8, 1.5, 4.0]))
        node._wake.set()

    async def isolate(self) -> None:
        name = self.rng.choice(self.group.names)
        self.group.network.partition({name}, set(self.group.names) - {name})

    async def one_way(self) -> None:
        source, target = self.rng.sample(self.group.names, 2)
        self.group.network.cut(source, target)

    async def reset(self) -> None:
        self.group.network.reset(*self.rng.sample(self.group.names, 2))

    async def heal(self) -> None:
        self.group.network.heal()

    async def crash(self) -> None:
        await self.group.crash(self.rng.choice(self.group.names), lose_all=self.rng.random() < 0.5)

    async def crash_all(self) -> None:
        if self.rng.random() < 0.3:
            for name in self.group.names:
                await self.group.crash(name, lose_all=self.rng.random() < 0.5)
            await self.group.start_all()

    async def stop(self) -> None:
        running = self.group.up()
        if running:
            await self.group.stop(self.rng.choice(running))

    async def restart(self) -> None:
        await self.group.start_all()


async def fuzz(seed: int) -> tuple[Fuzz, RaftGroup]:
    async with trio.open_nursery() as nursery:
        group = RaftGroup(seed, nursery, size=5 if seed % 4 == 3 else 3, settings=SETTINGS)
        await group.start_all()
        run = Fuzz(seed, group)
        with trio.move_on_after(SIMULATED_S):
            async with trio.open_nursery() as actors:
                for number in range(4):
                    actors.start_soon(run.client, number)
                actors.start_soon(run.nemesis)
                actors.start_soon(run.pauses)
        group.network.heal()
        await group.start_all()
        await group.propose(b"final")
        await group.wait_converged()
        nursery.cancel_scope.cancel()
    return run, group


@pytest.mark.parametrize("seed", range(24))
def test_fuzz(seed: int) -> None:
    run, group = run_simulation(seed, fuzz, seed)
    print(f"seed {seed}: {run.proposed} proposed, {len(run.acknowledged)} acknowledged, faults {run.faults}")
    assert group.violations == []
    logs = [group.machine(name).operations for name in group.names]
    assert all(log == logs[0] for log in logs)
    final = set(logs[0])
    assert [operation for operation in run.acknowledged if operation not in final] == []
    assert [operation for operation in run.refused if operation in final] == []
    assert [operation for operation in final - {b"final"} if logs[0].count(operation) > 1] == []
    assert len(run.acknowledged) > 20
    assert all(host.error is None for host in group.hosts.values())


def test_the_fuzzer_finds_missing_syncs() -> None:
    """Teeth: with fsync left out, a power loss of all loses acknowledged writes."""

    async def main(seed: int) -> int:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(seed, nursery, settings=RaftSettings(mutant="skip-fsync"))
            await group.start_all()
            leader = await group.wait_leader()
            for number in range(10):
                await group.node(leader).propose(b"%d" % number)
            for name in group.names:
                await group.crash(name, lose_all=True)
            await group.start_all()
            await group.propose(b"after")
            lost = 10 - len(group.machine(await group.wait_leader()).operations) + 1
            nursery.cancel_scope.cancel()
        return lost

    assert run_simulation(1, main, 1) == 10


_TRACE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_raft_fuzz
from chaos.sim.clock import run_simulation
run, group = run_simulation(int(sys.argv[1]), test_raft_fuzz.fuzz, int(sys.argv[1]))
print(group.network.trace_hash, len(run.acknowledged))
"""


def test_one_seed_one_trace() -> None:
    """In processes with different hash seeds; another seed gives another trace."""

    def trace(seed: int, hash_seed: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", _TRACE, str(seed), str(Path(__file__).parent)],
            env={"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-1]

    assert trace(5, 1) == trace(5, 2)
    assert trace(5, 1) != trace(6, 1)
