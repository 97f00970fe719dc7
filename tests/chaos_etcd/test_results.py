"""The kept results of runs on a real etcd say one thing in all their parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from chaos.checkers.judge import INVARIANTS
from chaos.etcd.faults import ETCD_FAULTS
from chaos.etcd.run import WORKLOADS

KEPT = Path(__file__).parents[2] / "chaos" / "results" / "etcd.json"
RUNS: list[dict[str, Any]] = orjson.loads(KEPT.read_bytes())


@pytest.mark.parametrize("run", RUNS, ids=[f"{run['workload']}-{run['seed']}" for run in RUNS])
def test_a_run_is_told_without_contradiction(run: dict[str, Any]) -> None:
    assert run["target"].startswith("etcd 3.")
    assert run["workload"] in WORKLOADS
    assert set(run["faults"]) <= set(ETCD_FAULTS)
    assert 0 < run["faults_effective"] <= sum(run["faults"].values())
    assert run["says"].startswith(run["verdict"])
    assert (run["verdict"] == "invalid") == bool(run["violations"])
    assert {row["invariant"] for row in run["violations"]} <= set(INVARIANTS)
    if run["confirmed"]:
        assert "S4" in {row["invariant"] for row in run["violations"]} or "stand at" in run["confirmed"]
        assert run["confirmed"] in run["says"]


def test_the_known_bug_was_found_and_confirmed() -> None:
    """Whoever never found a bug proves nothing: 3.5.1 has one (etcd issue 13766)."""
    found = [run for run in RUNS if run["target"] == "etcd 3.5.1" and run["confirmed"]]
    assert len({run["seed"] for run in found}) >= 2
