"""World `store` of the simulation: what a plan decides, what dies when a process dies, what is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from chaos.sim.clock import run_simulation
from chaos.sim.disk import MountedDisk
from chaos.sim.network import SimNetwork
from chaos.sim.outcome import Outcome
from chaos.sim.plan import Injection, Plan, PlanError, plan_from_json
from chaos.sim.quiet import hush
from chaos.sim.runs import SimOptions, read_plan
from chaos.sim.shrink import invariants_broken, shrink
from chaos.sim.simulated_store import SimulatedStore
from chaos.sim.store_world import run_store_plan
from chaos.sim.swarm import GROUPS, draw_store_plan
from chaos.sim.trio_private import HOST, AtStep, go_on, stand_still
from chaos.sim.worlds import WORLDS, run_plan
from raftkube.net import Address
from raftkube.rng import seeded_rng

ROOT = Path(__file__).parents[2]
SEEDS = ROOT / "chaos" / "seeds"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    hush()
    yield
    structlog.reset_defaults()


def light(plan: Plan) -> Plan:
    """The same faults under little load: many simulated seconds in one of the processor's."""
    from dataclasses import replace

    workload = plan.load["workload"] | {"think_s": 2.0, "clients": 2, "candidates": 0}
    return replace(plan, load=plan.load | {"hosts": 1, "workload": workload})


def told(outcome: Outcome) -> str:
    plan = outcome.plan
    return (
        f"{[(v.invariant, v.sentence) for v in outcome.verdict.violations]}"
        f" {outcome.verdict.unknown_because}; "
        f"again: {SimOptions('store', plan.duration_s).replay_line(plan.seed)}"
    )


@pytest.mark.parametrize("seed", range(6))
def test_seeds_of_every_kind_of_fault_are_valid(seed: int) -> None:
    outcome = run_store_plan(draw_store_plan(seed, 30.0))
    assert outcome.verdict.word == "valid", told(outcome)
    assert outcome.verdict.checked["operations"] > 20


@pytest.mark.parametrize(
    "seed", [*range(100, 104), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(104, 120))]
)
def test_light_load_for_long(seed: int) -> None:
    """Together with what else is simulated more than two hours in each run of the tests."""
    outcome = run_store_plan(light(draw_store_plan(seed, 360.0)))
    assert outcome.verdict.word == "valid", told(outcome)
    assert outcome.simulated_s >= 360


def test_one_plan_one_trace() -> None:
    """In processes of their own, with different hash seeds, and with everything that a plan may hold."""
    code = (
        "from chaos.sim.quiet import hush; hush()\n"
        "from chaos.sim.swarm import draw_store_plan\n"
        "from chaos.sim.store_world import run_store_plan\n"
        "print([run_store_plan(draw_store_plan(seed, 20.0)).trace for seed in (1, 4, 9)])"
    )
    traces = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True, text=True, check=True, timeout=300,
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert len(traces) == 1


@pytest.mark.long
def test_every_fault_of_the_table_hits_somebody() -> None:
    """Each by itself, three times, on a store that is well otherwise."""
    for name in WORLDS["store"].faults:
        faults = tuple(Injection(2.0 + 6 * at, name, 7 * at + 2, 3.0, 0.3 * at + 0.1) for at in range(3))
        plan = Plan("store", 5, 22.0, load={"hosts": 1, "workload": {"think_s": 0.1}}, faults=faults)
        outcome = run_store_plan(plan)
        assert outcome.verdict.word == "valid", f"{name}: {told(outcome)}"
        assert outcome.faults.get(name, 0) >= 1, name


def test_the_groups_hold_every_fault() -> None:
    assert {name for group in GROUPS.values() for name in group} == set(WORLDS["store"].faults)


# What a process leaves when it dies.


def test_no_finally_of_a_dead_process_reaches_anything() -> None:
    async def main() -> list[str]:
        network, reached = SimNetwork(seeded_rng(1)), []
        async with trio.open_nursery() as nursery:
            store = SimulatedStore(1, nursery, network=network)
            listener = await network.host("witness").listen(Address("witness", 1), None)
            disk, machine_s = MountedDisk(store.disks["store-1"]), store.disks["store-1"]
            doors = network.host("store-1")

            async def process() -> None:
                HOST.set("store-1")
                file = disk.open("left", create=True)
                connection = await doors.connect(Address("witness", 1), None)
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        for last_act in (
                            lambda: connection.send_nowait(b"last words"),
                            lambda: file.append(b"last words"),
                            lambda: disk.open("new", create=True).append(b"x"),
                        ):
                            with pytest.raises((OSError, trio.BrokenResourceError)):
                                last_act()
                        with pytest.raises(OSError, match="is dead"):
                            await doors.connect(Address("witness", 1), None)
                        reached.append("finally")

            scope = trio.CancelScope()
            store.running["store-1"] = scope
            store._ended["store-1"] = trio.Event()

            async def run() -> None:
                with scope:
                    await process()
                store._ended["store-1"].set()

            nursery.start_soon(run)
            await listener.accept()
            await store.kill("store-1")
            assert machine_s.names() == ["left"]
            assert machine_s.read_all("left") == b""
            nursery.cancel_scope.cancel()
        return reached

    assert run_simulation(1, main) == ["finally"]


def test_a_host_that_stands_still_takes_no_step_and_finds_its_time_gone() -> None:
    async def main() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        async def beat(host: str) -> None:
            HOST.set(host)
            for _ in range(6):
                await trio.sleep(1)
                seen.append((host, trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat, "a")
            nursery.start_soon(beat, "b")
            await trio.sleep(1.5)
            stand_still("a")
            await trio.sleep(3)
            go_on("a")
        return seen

    seen = run_simulation(1, main)
    assert [at for host, at in seen if host == "b"] == [1, 2, 3, 4, 5, 6]
    assert [at for host, at in seen if host == "a"] == [1, 4.5, 5.5, 6.5, 7.5, 8.5]


def test_a_process_dies_before_the_step_that_was_chosen() -> None:
    async def main() -> int:
        steps = 0

        async def walk() -> None:
            nonlocal steps
            HOST.set("a")
            while True:
                await trio.sleep(0.1)
                steps += 1

        async with trio.open_nursery() as nursery:
            inner = trio.CancelScope()

            async def run() -> None:
                with inner:
                    await walk()

            nursery.start_soon(run)
            await trio.sleep(0.05)
            with AtStep("a", 4, inner.cancel):
                await trio.sleep(10)
        return steps

    assert run_simulation(1, main) == 3  # the fourth was not taken


# Plans.


def test_a_plan_survives_its_file() -> None:
    plan = draw_store_plan(3, 30.0)
    again = plan_from_json(json.loads(json.dumps(plan.to_json())))
    assert json.dumps(again.to_json()) == json.dumps(plan.to_json())
    assert run_store_plan(again).trace == run_store_plan(plan).trace


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 9}, "format is 9"),
        ({"colour": 1}, "field 'colour' is not known"),
        ({"faults": [{"at": 1}]}, "at"),
        ({"settings": {"sizes": 3}}, "sizes"),
        ({"load": {"workload": {"cliants": 3}}}, "cliants"),
        ({"faults": [{"at_s": 1, "fault": "meteor"}]}, "'meteor' does not exist"),
        ({"world": "moon"}, "world 'moon' does not exist"),
        ({"mutant": "nobody"}, "nobody"),
    ],
)
def test_what_cannot_be_run_is_said(change: dict[str, object], said: str) -> None:
    document = {"format": 1, "world": "store", "seed": 1, "duration_s": 2.0} | change
    with pytest.raises(PlanError, match=said):
        run_plan(plan_from_json(document))


def test_a_file_that_is_no_plan_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1")
    with pytest.raises(PlanError, match="is no plan"):
        read_plan(tmp_path / "x.json")


# What is found.


def test_a_planted_bug_is_found_and_its_plan_shrinks() -> None:
    for seed in range(2, 12):
        plan = draw_store_plan(seed, 20.0, ("power-loss-all", "kill", "reset"), mutant="no-sync")
        outcome = run_store_plan(plan)
        if outcome.verdict.word == "invalid":
            break
    assert outcome.verdict.word == "invalid", "no seed of ten lost anything without a sync"
    shrunk = shrink(outcome, run_plan, tries_max=40)
    assert len(shrunk.plan.faults) <= 3
    assert invariants_broken(shrunk.outcome) & invariants_broken(outcome)
    assert run_plan(shrunk.plan).trace == shrunk.outcome.trace


def _plans() -> Iterator[Any]:
    for file in sorted(SEEDS.glob("*.json")):
        slow = file.stem.startswith("cluster-") and file.stem != "cluster-create-carried-out-late"
        yield pytest.param(file, id=file.stem, marks=pytest.mark.long if slow else ())


@pytest.mark.parametrize("file", list(_plans()))
def test_what_once_failed_is_valid_now(file: Path) -> None:
    """Each is a plan under which the product broke a promise (docs/BUGS.md tells the stories)."""
    plan, _ = read_plan(file)
    outcome = run_plan(plan)
    assert outcome.verdict.word == "valid", told(outcome)
