"""What one simulated run showed, whatever its world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chaos.checkers.verdict import Verdict
from chaos.sim.plan import Plan


@dataclass(slots=True)
class Outcome:
    """`records`: the history, header first, as `chaos.checkers.history` reads it. `trace`: equal for two runs
    in which the same bytes were sent at the same times. `faults`: by name, how many had their effect."""

    plan: Plan
    verdict: Verdict
    records: list[dict[str, Any]]
    trace: str
    simulated_s: float
    cpu_s: float
    faults: dict[str, int] = field(default_factory=dict)
