"""The stories in scripts/ still end as they are told. REWRITE_SCRIPTS=1 writes down what happens now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from store_script import run_script

from raftkube.store.core import StateMachine

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))
ids = [path.stem for path in SCRIPTS]


def restarted(machine: StateMachine) -> StateMachine:
    return StateMachine.restore(machine.snapshot())


def trimmed(machine: StateMachine) -> StateMachine:
    assert machine.trim(1_000_000)
    return machine


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 8


@pytest.mark.parametrize("path", SCRIPTS, ids=ids)
def test_script(path: Path) -> None:
    told = path.read_text()
    happens = run_script(told)
    if os.environ.get("REWRITE_SCRIPTS"):
        path.write_text(happens)
        return
    assert happens == told


@pytest.mark.parametrize("after_each", [restarted, trimmed], ids=["restarted", "trimmed"])
@pytest.mark.parametrize("path", SCRIPTS, ids=ids)
def test_script_is_told_alike_by_a_machine_that_was(path: Path, after_each) -> None:  # type: ignore[no-untyped-def]
    told = path.read_text()
    assert run_script(told, after_each=after_each) == told
