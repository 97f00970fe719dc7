"""What docs/CHAOS.md tells of long simulations is what their summaries hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SUMMARIES = sorted((ROOT / "chaos" / "results").glob("sim-*.json"))


def _row(summary: dict[str, Any]) -> list[str]:
    begin, end = summary["seeds"]
    return [
        summary["world"],
        f"{end - begin:,}",
        f"{summary['duration_s']:g}",
        f"{summary['simulated_hours']:g}",
        f"{sum(summary['faults_hit'].values()):,} of {len(summary['faults_hit'])} kinds",
        ", ".join(f"{count:,} {word}" for word, count in summary["verdicts"].items()),
        summary["commit"],
    ]


def test_the_table_of_long_runs_is_that_of_the_summaries() -> None:
    table = (ROOT / "docs" / "CHAOS.md").read_text().partition("<!-- long runs -->\n")[2].partition("\n\n")[0]
    rows = [re.split(r" \| ", line.strip("| ")) for line in table.splitlines()[2:]]
    assert rows == [_row(json.loads(path.read_text())) for path in SUMMARIES]
    assert {row[0] for row in rows} == {"store", "cluster"}
