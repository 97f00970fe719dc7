"""The figures in docs/BENCH.md are those of bench/results."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_is_what_was_measured() -> None:
    lines = runpy.run_path(str(ROOT / "scripts" / "bench_table.py"))["table"]()
    assert len(lines) == 12
    assert "\n".join(lines) in (ROOT / "docs" / "BENCH.md").read_text()
