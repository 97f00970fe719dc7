"""The figures in docs/BENCH.md are those of bench/results."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_are_what_was_measured() -> None:
    tables = runpy.run_path(str(ROOT / "scripts" / "bench_table.py"))
    text = (ROOT / "docs" / "BENCH.md").read_text()
    rates, figures = tables["rates"](), tables["figures"]()
    assert len(rates) == 28
    assert "\n".join(rates) in text
    assert "\n".join(figures) in text
    for commit in tables["commits"]():
        assert commit.rstrip("+") in text
