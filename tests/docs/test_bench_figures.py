"""The figures in docs/BENCH.md are those of bench/results."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_are_what_was_measured() -> None:
    tables = runpy.run_path(str(ROOT / "scripts" / "bench_table.py"))
    text = (ROOT / "docs" / "BENCH.md").read_text()
    lengths = {"rates": 24, "watches": 12, "api": 9, "figures": 15}
    for name, length in lengths.items():
        table = tables[name]()
        assert len(table) == length, name
        assert "\n".join(table) in text, name
    for commit in tables["commits"]():
        assert commit.rstrip("+") in text
