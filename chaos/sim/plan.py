"""What one simulated run is to do, as data: who takes part, what breaks when, what load there is.

A seed draws a plan (`swarm`); a plan alone decides a run, to the last byte. Shrinking takes things out of
a plan, a replay reads one from a file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

FORMAT: Final = 1
World = Literal["store", "cluster"]


class PlanError(Exception):
    """Not a plan that this version can run: one sentence that names the field."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault of a schedule. `choice` picks among the possible targets at that moment (modulo their
    number), `amount` in [0, 1) is how hard it hits; a fault says what it makes of them."""

    at_s: float
    fault: str
    choice: int = 0
    lasts_s: float = 0.0
    amount: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in virtual seconds. Faults stop at `duration_s` (safety phase); then everything is healed and has
    to come together (liveness phase). `settings`: what differs from the world's defaults, by its own names.
    `load`: likewise for the workload. `mutant`: a bug that is switched on."""

    world: World
    seed: int
    duration_s: float
    settings: dict[str, Any] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)
    faults: tuple[Injection, ...] = ()
    mutant: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


def plan_from_json(document: dict[str, Any]) -> Plan:
    """Raises PlanError: another format, an unknown or a missing field."""
    if document.get("format") != FORMAT:
        raise PlanError(f"format is {document.get('format')!r}; this version runs {FORMAT}")
    given = {name: value for name, value in document.items() if name != "format"}
    unknown = given.keys() - {each.name for each in fields(Plan)}
    if unknown:
        raise PlanError(f"field {min(unknown)!r} is not known")
    try:
        faults = tuple(Injection(**each) for each in given.pop("faults", ()))
        return Plan(**given, faults=faults)
    except TypeError as error:
        raise PlanError(str(error)) from error
