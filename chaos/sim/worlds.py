"""The worlds that can be simulated, by the names that the command line and plans use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chaos.sim import cluster_faults, cluster_run, store_world, swarm
from chaos.sim.outcome import Outcome
from chaos.sim.plan import Plan, PlanError
from chaos.sim.store_faults import FAULTS


@dataclass(frozen=True, slots=True)
class SimulatedWorld:
    """`draw(seed, duration_s, faults, mutant)` makes a plan, `run(plan)` carries it out. `faults`: name ->
    what it does; `groups`: names for several."""

    draw: Callable[[int, float, Sequence[str] | None, str | None], Plan]
    run: Callable[[Plan], Outcome]
    faults: Mapping[str, str]
    groups: Mapping[str, tuple[str, ...]]

    def choose_faults(self, text: str) -> tuple[str, ...]:
        """The faults of a list of names and groups, `all` among them. Raises PlanError: an unknown name."""
        chosen: list[str] = []
        for part in filter(None, text.split(",")):
            names: Sequence[str] = (list(self.faults) if part == "all" else self.groups.get(part, ())) or (
                (part,) if part in self.faults else ()
            )
            if not names:
                known = ", ".join(("all", *self.groups, *self.faults))
                raise PlanError(f"--faults: {part!r} is not known; there are {known}")
            chosen += [name for name in names if name not in chosen]
        return tuple(chosen)


def _sentence(function: Callable[..., object]) -> str:
    """The first sentence of a docstring."""
    return " ".join((function.__doc__ or "").split()).split(". ")[0].rstrip(".")


WORLDS: Final[dict[str, SimulatedWorld]] = {
    "store": SimulatedWorld(
        swarm.draw_store_plan,
        store_world.run_store_plan,
        {name: _sentence(fault) for name, fault in FAULTS.items()},
        swarm.GROUPS,
    ),
    "cluster": SimulatedWorld(
        cluster_run.draw_cluster_plan,
        cluster_run.run_cluster_plan,
        {name: fault.what for name, fault in cluster_faults.FAULTS.items()},
        {},
    ),
}


def run_plan(plan: Plan) -> Outcome:
    """Raises PlanError: it names what does not exist."""
    world = WORLDS.get(plan.world)
    if world is None:
        raise PlanError(f"world {plan.world!r} does not exist; there are {', '.join(WORLDS)}")
    return world.run(plan)
