"""docs/DEFECTS.md names tests that exist, and every test of a defect stands in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "DEFECTS.md"


def _tests() -> set[str]:
    found: set[str] = set()
    for path in HERE.glob("test_defect_*.py"):
        found.update(re.findall(r"^def (test_\w+)", path.read_text(), re.M))
    return found


def test_the_table_and_the_tests_name_each_other() -> None:
    table = PAGE.read_text().split("<!-- defects:")[1].split("\n\n")[0]
    assert set(re.findall(r"`(test_\w+)`", table)) == _tests()
    assert all(len(row.split("|")) == 5 for row in table.splitlines()[1:])


def _row(name: str) -> str:
    """What docs/DEFECTS.md says of a kept result."""
    run = json.loads((HERE.parents[1] / "chaos" / "results" / f"{name}.json").read_text())
    found = run["seeds_with"]
    cells = [
        f"{run['group']}, `{run['faults']}`", run["seeds_count"], run["proposed"], run["acknowledged"],
        f"{run['lost']} in {found.get('lost write', 0)}", f"{run['unanswered_percent']} %",
        found.get("stale read", 0), found.get("two entries", 0) + found.get("divergence", 0),
        f"{run['converged']} of {run['seeds_count']}", run["seeds_with_a_violation"],
        f"`{run['commit'][:7]}`",
    ]  # fmt: skip
    return f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else cell for cell in cells)} |"


@pytest.mark.parametrize("name", ["fuzz-raftkube", "fuzz-raftkube-240", "fuzz-stock-process", "fuzz-stock"])
def test_the_figures_are_what_was_measured(name: str) -> None:
    assert _row(name) in PAGE.read_text().splitlines()


@pytest.mark.parametrize("name", ["fuzz-raftkube", "fuzz-raftkube-240"])
def test_raftkube_lost_nothing(name: str) -> None:
    run = json.loads((HERE.parents[1] / "chaos" / "results" / f"{name}.json").read_text())
    assert run["lost"] == run["unanswered"] == run["seeds_with_a_violation"] == 0
    assert run["converged"] == run["seeds_count"]
