"""`chaos live --target etcd` on real processes; its verdict says what etcd did and gates nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parents[2]


def chaos(*arguments: object) -> tuple[int, str]:
    """Exit code and what was said."""
    command = [sys.executable, "-m", "chaos", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr


@pytest.mark.long
def test_a_run_is_recorded_judged_and_judged_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    faults = "kill-store-leader,pause-store-leader,kill-store-all"
    code, said = chaos(
        "live", "--target", "etcd", "--faults", faults, "--duration", 20, "--seed", 3, "--out", out
    )
    summary = orjson.loads((out / "summary.json").read_bytes())
    report = orjson.loads((out / "report.json").read_bytes())
    # This etcd has bugs of its own: whatever it did, the parts must say the same of it.
    assert code == {"valid": 0, "invalid": 1, "unknown": 2}[summary["verdict"]], said
    assert report["verdict"] == summary["verdict"]
    assert (summary["verdict"] == "invalid") == bool(summary["violations"])
    assert summary["faults_effective"] >= 2, said
    assert report["checked"]["operations"] >= 1_000
    assert report["checked"]["member hashes"] == 3
    assert summary["target"] == "etcd 3.5.1"
    again, told = chaos("check", out / "history.jsonl")
    assert again == code, told
    assert "kill-store-all on etcd-1,etcd-2,etcd-3" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--target", "etcd", "--mutant", "skip-fsync"), "--mutant is refused: mutants are raftkube's"),
        (("--target", "etcd", "--faults", "kill-apiserver"), "'kill-apiserver' is not known for etcd"),
        (("--workload", "kv-compares"), "--workload kv-compares is for etcd alone; add --target etcd"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    code, said = chaos("live", *arguments, "--out", tmp_path / "run")
    assert code == 2
    assert sentence in said
    assert not (tmp_path / "run").exists()
