"""The live harness on real processes: a sound store passes, a store with a planted bug does not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
STORE = """
apiVersion: raftkube.dev/v1alpha1
kind: Cluster
spec:
  testing: true
  store: {replicas: 3}
"""


def run_live(out: Path, *arguments: str, config: str | None = STORE) -> tuple[int, dict[str, Any], str]:
    """Exit code, report.json and what was said."""
    command = [sys.executable, "-m", "chaos", "live", "--out", str(out), *arguments]
    if config is not None:
        out.mkdir(parents=True)
        (out / "cluster.yaml").write_text(config)
        command += ["--config", str(out / "cluster.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    report = out / "report.json"
    return done.returncode, json.loads(report.read_text()) if report.exists() else {}, done.stderr


@pytest.mark.e2e
def test_kills_lose_nothing(tmp_path: Path) -> None:
    faults = "kill-store-leader,kill-store-follower"
    code, report, said = run_live(tmp_path / "run", "--faults", faults, "--duration", "14", "--seed", "3")
    assert code == 0, said
    assert report["faults_effective"] >= 2
    assert report["checked"]["operations"] >= 1_000
    assert {row["violations"] for row in report["invariants"]} == {0}
    again = subprocess.run(
        [sys.executable, "-m", "chaos", "check", str(tmp_path / "run" / "history.jsonl")],
        cwd=ROOT,
        check=False,
    )
    assert again.returncode == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert re.search(r'<span[^>]*id="verdict"[^>]*>valid</span>', page)
    assert "kill-store-leader" in page


@pytest.mark.e2e
def test_a_mutant_is_caught_and_the_lost_write_named(tmp_path: Path) -> None:
    code, report, said = run_live(
        tmp_path / "run", "--faults", "kill-store-leader", "--duration", "12", "--seed", "1",
        "--mutant", "ack-before-replicate",
    )  # fmt: skip
    assert code == 1, said
    assert any(violation["invariant"] == "S2" for violation in report["violations"])
    assert "lost write: " in said
    assert "again: python -m chaos live" in said
    assert "--seed 1" in said


@pytest.mark.e2e
def test_a_run_that_is_too_slow_is_unknown(tmp_path: Path) -> None:
    code, report, said = run_live(
        tmp_path / "run", "--faults", "kill-store-follower", "--duration", "6", "--min-rate", "1000000"
    )
    assert code == 2, said
    assert report["verdict"] == "unknown"
    assert "below --min-rate" in said


INSIDE = STORE.replace("{replicas: 3}", "{replicas: 3, launcher: chaos.live.faulty_store}")


def run_inside(out: Path, faults: str, seconds: int, *more: str) -> tuple[int, dict[str, Any], str]:
    """Store members behind the harness' doors; the seed gives the order of the faults."""
    return run_live(
        out,
        "--faults",
        faults,
        "--duration",
        str(seconds),
        "--seed",
        "5",
        "--min-rate",
        "20",
        *more,
        config=INSIDE,
    )


def effective(report: dict[str, Any]) -> set[str]:
    return {fault["name"] for fault in report["faults"] if fault["effect"]}


@pytest.mark.long
def test_a_power_loss_of_all_loses_nothing(tmp_path: Path) -> None:
    code, report, said = run_inside(tmp_path / "run", "power-loss-all,kill-store-all", 15)
    assert code == 0, said
    assert "power-loss-all" in effective(report)
    assert sum(fault.get("sectors_dropped", 0) for fault in report["faults"]) >= 1


@pytest.mark.long
def test_a_mutant_that_never_syncs_loses_writes_at_a_power_loss_of_all_and_is_caught(tmp_path: Path) -> None:
    code, report, said = run_inside(tmp_path / "run", "power-loss-all", 8, "--mutant", "skip-fsync")
    assert code == 1, said
    # What is lost as a whole is missed; after a loss by single sectors members do not take their journals.
    broken = {(each["invariant"], each["sentence"].split(": ")[0]) for each in report["violations"]}
    refused = [each["sentence"] for each in report["violations"] if each["invariant"] == "V2"]
    assert ("S2", "lost write") in broken or any("is damaged at" in each for each in refused), said[-2000:]
    assert sum(fault.get("sectors_dropped", 0) for fault in report["faults"]) >= 10


@pytest.mark.long
def test_the_mutant_that_never_syncs_survives_kills(tmp_path: Path) -> None:
    """So it is the power loss that the test above shows: a kill keeps the page cache."""
    code, report, said = run_inside(tmp_path / "run", "kill-store-all", 8, "--mutant", "skip-fsync")
    assert code == 0, said
    assert effective(report) == {"kill-store-all"}


@pytest.mark.long
def test_partitions_and_pauses_lose_nothing(tmp_path: Path) -> None:
    faults = "partition,pause-store-leader,pause-store-follower"
    code, report, said = run_inside(tmp_path / "run", faults, 45)
    assert code == 0, said
    assert len(effective(report)) >= 5


@pytest.mark.long
def test_disks_clocks_and_processors_lose_nothing(tmp_path: Path) -> None:
    code, report, said = run_inside(tmp_path / "run", "disk,clock,cpu", 45)
    assert code == 0, said
    assert len(effective(report)) >= 4
    assert not [why for why in report["unknown_because"] if "repair" in why]


@pytest.mark.long
def test_watches_through_a_dead_api_server_go_on_elsewhere(tmp_path: Path) -> None:
    code, report, said = run_live(
        tmp_path / "run", "--faults", "kill-apiserver,pause-apiserver", "--duration", "25",
        "--min-rate", "20",
        config=None,
    )  # fmt: skip
    assert code == 0, said
    assert {"kill-apiserver", "pause-apiserver"} <= effective(report)
    assert report["checked"]["API watch events"] >= 50


def test_a_mutant_needs_a_cluster_file_for_testing(tmp_path: Path) -> None:
    config = STORE.replace("testing: true", "testing: false")
    code, report, said = run_live(tmp_path / "run", "--mutant", "ack-before-replicate", config=config)
    assert (code, report) == (2, {})
    assert "is refused: the cluster file must say spec.testing: true" in said


def test_an_unknown_mutant_is_refused(tmp_path: Path) -> None:
    code, _, said = run_live(tmp_path / "run", "--mutant", "no-such-bug")
    assert code == 2
    assert "no-such-bug" in said
    assert "ack-before-replicate" in said


@pytest.mark.long
def test_the_whole_control_plane_survives_a_minute_of_kills(tmp_path: Path) -> None:
    seed = os.environ.get("CHAOS_SEED", "20")
    code, report, said = run_live(
        tmp_path / "run", "--faults", "kill", "--duration", "60", "--seed", seed, config=None
    )
    assert code == 0, said
    assert report["faults_effective"] >= 5
    assert report["checked"]["operations"] >= 5_000
    assert len({fault["name"] for fault in report["faults"] if fault["effect"]}) >= 5


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
def test_the_mutant_is_caught_in_every_seed(tmp_path: Path, seed: int) -> None:
    code, _, said = run_live(
        tmp_path / "run", "--faults", "kill", "--duration", "60", "--seed", str(seed),
        "--mutant", "ack-before-replicate", config=None,
    )  # fmt: skip
    assert code == 1, said
    assert "lost write: " in said
