"""docs/DEFECTS.md names tests that exist, and every test of a defect stands in it."""

from __future__ import annotations

import re
from pathlib import Path

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
