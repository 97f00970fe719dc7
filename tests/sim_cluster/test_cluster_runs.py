"""Seeds of the simulated cluster: faults and load, then peace, and everything that was promised held."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import orjson
import pytest

from chaos.sim.cluster_faults import FAULTS
from chaos.sim.cluster_run import draw_cluster_plan, run_cluster_plan
from chaos.sim.outcome import Outcome
from chaos.sim.plan import Injection, Plan, PlanError, plan_from_json

SHORT_S = 60.0


def assert_valid(outcome: Outcome) -> None:
    told = [f"{each.invariant}: {each.sentence}" for each in outcome.verdict.violations]
    assert outcome.verdict.word == "valid", (outcome.plan.seed, told, outcome.verdict.unknown_because)


@pytest.mark.parametrize("seed", range(3))
def test_seeds_with_all_faults(seed: int) -> None:
    outcome = run_cluster_plan(draw_cluster_plan(seed, SHORT_S))
    assert_valid(outcome)
    assert outcome.verdict.checked["bindings"] > 3


SIEVE = ("stale-apiserver", "intermediate-crash", "unobserved-event", "crash-at-bind", "two-leaders")


@pytest.mark.long
@pytest.mark.parametrize("fault", SIEVE)
def test_perturbations_have_their_effect(fault: str) -> None:
    shortest, longest = FAULTS[fault].lasts_s
    schedule = tuple(
        Injection(at_s, fault, choice, (shortest + longest) / 2, 0.5 * (choice % 2))
        for choice, at_s in enumerate((15.0, 30.0, 45.0))
    )
    outcome = run_cluster_plan(Plan("cluster", 5, SHORT_S, load={"pause_s": 1.5}, faults=schedule))
    assert_valid(outcome)
    assert outcome.faults.get(fault, 0) > 0


_TRACE = """
from chaos.sim.cluster_run import draw_cluster_plan, run_cluster_plan
import hashlib, orjson
outcome = run_cluster_plan(draw_cluster_plan(4, 40.0))
print(outcome.trace, hashlib.sha256(orjson.dumps(outcome.records)).hexdigest())
"""


def test_one_plan_gives_one_trace_in_every_process() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _TRACE], env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE
        )
        for seed in ("1", "2")
    ]
    told = [process.communicate(timeout=300)[0] for process in processes]
    assert told[0] == told[1] != b""
    assert [process.returncode for process in processes] == [0, 0]


def test_a_plan_survives_being_written_down() -> None:
    plan = draw_cluster_plan(11, 300.0)
    assert plan_from_json(orjson.loads(orjson.dumps(plan.to_json()))) == plan
    assert plan == draw_cluster_plan(11, 300.0)
    assert plan != draw_cluster_plan(12, 300.0)


def test_only_named_faults_are_drawn() -> None:
    plan = draw_cluster_plan(3, 600.0, ["reset", "compact"])
    assert {injection.fault for injection in plan.faults} <= {"reset", "compact"}
    assert plan.faults
    assert draw_cluster_plan(3, 600.0, []).faults == ()


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        (Plan("cluster", 1, 1.0, settings={"nodes": 3}), "settings.nodes"),
        (Plan("cluster", 1, 1.0, load={"speed": 3}), "load.speed"),
        (Plan("cluster", 1, 1.0, faults=(Injection(0.1, "rain"),)), "'rain'"),
        (Plan("cluster", 1, 1.0, mutant="rain"), "'rain'"),
    ],
)
def test_a_plan_with_unknown_names_is_refused(plan: Plan, names: str) -> None:
    with pytest.raises(PlanError, match=names):
        run_cluster_plan(plan)


def test_a_leader_that_is_not_fenced_is_noticed() -> None:
    plan = draw_cluster_plan(2, 120.0)
    outcome = run_cluster_plan(dataclasses.replace(plan, mutant="no-fence"))
    assert {violation.invariant for violation in outcome.verdict.violations} >= {"L3"}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
def test_long_seeds(seed: int) -> None:
    assert_valid(run_cluster_plan(draw_cluster_plan(seed, 300.0)))
