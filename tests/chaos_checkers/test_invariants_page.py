"""docs/INVARIANTS.md has each invariant once, with its promise in the words of the program."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from chaos.__main__ import cli
from chaos.checkers.judge import INVARIANTS

PAGE = (Path(__file__).parents[2] / "docs" / "INVARIANTS.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| `[A-Z]\d", line)
]


def test_the_page_has_each_invariant_once() -> None:
    assert sorted(row[0].strip("`") for row in ROWS) == sorted(INVARIANTS)


def test_the_promises_are_those_of_the_program() -> None:
    """Without the word that says whose they are: the page's headings say it."""
    for name, promise, *_ in ROWS:
        said = INVARIANTS[name.strip("`")]
        assert promise == said.removeprefix("watch: ").removeprefix("lease: "), name


def test_each_row_says_how_it_is_judged() -> None:
    for row in ROWS:
        assert len(row) == 4, row[0]
        assert row[2], row[0]


def test_the_command_lists_them() -> None:
    listed = CliRunner().invoke(cli, ["list"]).output
    for name, promise in INVARIANTS.items():
        assert re.search(rf"^  {name} +{re.escape(promise)}$", listed, re.M), name
