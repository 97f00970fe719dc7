"""docs/RULES.md: each rule names tests, and they exist."""

from __future__ import annotations

import re
from functools import cache

from docs_text import ROOT

PAGE = ROOT / "docs" / "RULES.md"


@cache
def existing_tests() -> frozenset[str]:
    return frozenset(
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.M)
    )


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "rule" and set(row[0]) != {"-"}]


def test_every_rule_names_existing_tests() -> None:
    assert len(rows()) > 60
    for rule, named, mark in rows():
        tests = re.findall(r"`(\w+)`", named)
        assert tests, rule
        assert not set(tests) - existing_tests(), rule
        assert mark in ("", "planted"), rule


def test_enough_rules_were_broken_to_see_their_tests_fail() -> None:
    assert sum(mark == "planted" for _, _, mark in rows()) >= 10
