"""Members come and go at random beside crashes, cuts and resets: nothing acknowledged is lost, one leader a
term, the same entry everywhere, and the members of the last configuration converge.

A failing seed is replayed by `pytest tests/store_raft/test_membership_fuzz.py -k "<seed>]"`.
"""

from __future__ import annotations

from random import Random

import pytest
import trio

from chaos.sim.changing_group import ChangingGroup
from chaos.sim.clock import run_simulation
from raftkube.errors import MemberRetired, StoreError
from raftkube.store.raft.identity import bootstrap, new_member_id
from raftkube.store.raft.membership import AddLearner, Change, MemberAddresses, Promote, Remove
from raftkube.store.raft.settings import RaftSettings
from raftkube.types import member_name

SETTINGS = RaftSettings(
    snapshot_log_entries=40, retain_entries=8, snapshot_chunk_bytes=500, segment_bytes=16 * 1024
)
VOTERS_MAX = 5


class Run:
    """Clients, faults, and an operator who adds, replaces and removes members."""

    def __init__(self, seed: int, group: ChangingGroup) -> None:
        self.group, self.rng = group, Random(f"members-{seed}")
        self.acknowledged: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.done: dict[str, int] = {}
        self._added = 0

    # Clients.

    async def client(self, number: int) -> None:
        for count in range(1 << 30):
            await trio.sleep(self.rng.uniform(0.0, 0.15))
            running = self.group.up()
            if not running:
                continue
            operation = b"%d-%d" % (number, count)
            try:
                if self.rng.random() < 0.2:
                    await self.read(self.rng.choice(running))
                await self.group.node(self.rng.choice(running)).propose(operation)
                self.acknowledged.add(operation)
            except StoreError as error:
                if error.definite:
                    self.refused.add(operation)

    async def read(self, name: str) -> None:
        before, machine = set(self.acknowledged), self.group.machine(name)
        await self.group.node(name).read_index()
        missing = before - set(machine.operations)
        if missing:
            self.group.violations.append(f"a read on {name} misses {sorted(missing)[:3]}")

    # Faults.

    async def nemesis(self) -> None:
        while True:
            await trio.sleep(self.rng.uniform(0.1, 1.0))
            fault = self.rng.choice(["isolate", "one_way", "reset", "crash"] + ["heal", "restart"] * 3)
            await getattr(self, fault)()

    async def isolate(self) -> None:
        names = list(self.group.hosts)
        name = self.rng.choice(names)
        self.group.network.partition({name}, set(names) - {name})

    async def one_way(self) -> None:
        self.group.network.cut(*self.rng.sample(list(self.group.hosts), 2))

    async def reset(self) -> None:
        self.group.network.reset(*self.rng.sample(list(self.group.hosts), 2))

    async def heal(self) -> None:
        self.group.network.heal()

    async def crash(self) -> None:
        await self.group.crash(self.rng.choice(list(self.group.hosts)), lose_all=self.rng.random() < 0.5)

    async def restart(self) -> None:
        """What is down comes back on its disk, unless it was removed for good."""
        for name, host in list(self.group.hosts.items()):
            if host.scope is None and not isinstance(host.error, MemberRetired):
                await self.group.start(name)

    # The operator.

    async def operator(self) -> None:
        while True:
            await trio.sleep(self.rng.uniform(0.3, 2.0))
            leaders = [name for name in self.group.up() if self.group.node(name).role.ready]
            if leaders:
                await self.change(max(leaders, key=lambda name: self.group.node(name).role.term))

    async def change(self, leader: str) -> None:
        configuration = self.group.node(leader).configuration
        wish: Change
        if len(configuration.members) < VOTERS_MAX and self.rng.random() < 0.6:
            self._added += 1
            name = f"added-{self._added}"
            wish = AddLearner(
                new_member_id(name, self.rng), MemberAddresses(f"{name}:2380"), self.rng.random() < 0.8
            )
        elif configuration.learners and self.rng.random() < 0.4:
            wish = Promote(self.rng.choice(sorted(configuration.learners)))
        elif len(configuration.voters) > 1 and self.rng.random() < 0.5:
            wish = Remove(self.rng.choice(sorted(configuration.members)))
        else:
            return
        try:
            with trio.move_on_after(3):
                after = await self.group.node(leader).change_members(wish)
                kind = type(wish).__name__
                self.done[kind] = self.done.get(kind, 0) + 1
                if isinstance(wish, AddLearner):
                    mine = self.group.node(leader).identity
                    name = member_name(wish.id)
                    host = self.group.machine_of(name)
                    host.blank = bootstrap(name, mine.token, mine.cluster_id, after, self.rng)
                    await self.group.start(name)
        except StoreError:
            pass

    async def settle(self) -> None:
        """Peace: everybody who belongs to the group runs; who never came is removed."""
        self.group.network.heal()
        await self.restart()
        await self.group.wait_leader(among=list(self.group.hosts), timeout_s=60)
        with trio.fail_after(120):
            while True:
                leader = await self.ready()
                members = self.group.node(leader).configuration.members
                absent = [id_ for id_ in members if member_name(id_) not in self.group.hosts]
                if not absent:
                    break
                try:
                    await self.group.node(leader).change_members(Remove(absent[0]))
                except StoreError:
                    await trio.sleep(0.1)
        self.group.names = [member_name(id_) for id_ in members]
        await self.group.propose(b"final")
        await self.group.wait_converged(timeout_s=120)

    async def ready(self) -> str:
        with trio.fail_after(60):
            while True:
                ready = [
                    name
                    for name, host in self.group.hosts.items()
                    if host.scope and self.group.node(name).role.ready
                ]
                if ready:
                    return max(ready, key=lambda name: self.group.node(name).role.term)
                await trio.sleep(0.05)


class EverybodyGroup(ChangingGroup):
    """`up` tells of all machines: whether one belongs to the group is what changes."""

    def up(self) -> list[str]:
        return [name for name, host in self.hosts.items() if host.scope is not None]

    async def wait_converged(self, *, timeout_s: float = 60.0) -> None:
        with trio.fail_after(timeout_s):
            while True:
                states = [self.node(name).status() for name in self.names if self.hosts[name].scope]
                marks = {(state.applied_index, state.leader, state.term) for state in states}
                if len(states) == len(self.names) and len(marks) == 1 and states[0].leader is not None:
                    return
                await trio.sleep(0.05)


async def fuzz(seed: int, simulated_s: float) -> tuple[Run, ChangingGroup]:
    async with trio.open_nursery() as nursery:
        group = EverybodyGroup(seed, nursery, settings=SETTINGS)
        await group.start_all()
        run = Run(seed, group)
        with trio.move_on_after(simulated_s):
            async with trio.open_nursery() as actors:
                for number in range(3):
                    actors.start_soon(run.client, number)
                actors.start_soon(run.nemesis)
                actors.start_soon(run.operator)
        await run.settle()
        nursery.cancel_scope.cancel()
    return run, group


def check(seed: int, simulated_s: float) -> None:
    run, group = run_simulation(seed, fuzz, seed, simulated_s)
    print(f"seed {seed}: {len(run.acknowledged)} acknowledged, changes {run.done}, members {group.names}")
    assert group.violations == []
    logs = [group.machine(name).operations for name in group.names]
    assert all(log == logs[0] for log in logs)
    final = set(logs[0])
    assert [operation for operation in run.acknowledged if operation not in final] == []
    assert [operation for operation in run.refused if operation in final] == []
    assert len(logs[0]) == len(final)
    errors = [host.error for host in group.hosts.values() if host.error is not None]
    assert all(isinstance(error, MemberRetired) for error in errors), errors
    configurations = {group.node(name).configuration.encode() for name in group.names}
    assert len(configurations) == 1


@pytest.mark.parametrize("seed", range(8))
def test_members_change_at_random(seed: int) -> None:
    check(seed, 15.0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1050))
def test_members_change_at_random_for_a_minute(seed: int) -> None:
    check(seed, 60.0)
