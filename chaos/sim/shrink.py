"""A plan that fails, made smaller while it still fails by the same invariant.

Delta debugging over the faults (Zeller and Hildebrandt, IEEE TSE 2002), then a shorter run, then less load.
Every try is a whole run: the rest of it changes with each fault that is taken out, so what fails is looked
at, not the way there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from chaos.sim.outcome import Outcome
from chaos.sim.plan import Injection, Plan

_AFTER_S = 3.0  # kept after the last fault


@dataclass(slots=True)
class Shrunk:
    """The smallest plan found, what it showed, and how many runs that took."""

    plan: Plan
    outcome: Outcome
    tries: int = 0


def invariants_broken(outcome: Outcome) -> set[str]:
    return {violation.invariant for violation in outcome.verdict.violations}


def shrink(outcome: Outcome, run: Callable[[Plan], Outcome], *, tries_max: int = 120) -> Shrunk:
    """`outcome` is that of a plan that fails. At most `tries_max` runs of `run`."""
    wanted = invariants_broken(outcome)
    best = Shrunk(outcome.plan, outcome)

    def fails(plan: Plan) -> bool:
        if best.tries >= tries_max:
            return False
        best.tries += 1
        found = run(plan)
        if not wanted & invariants_broken(found):
            return False
        best.plan, best.outcome = plan, found
        return True

    _fewer_faults(best, fails)
    _shorter(best, fails)
    _less_load(best, fails)
    _fewer_faults(best, fails)
    return best


def _fewer_faults(best: Shrunk, fails: Callable[[Plan], bool]) -> None:
    """ddmin: parts of the schedule, or all but a part, in ever smaller parts; last one by one."""
    if fails(replace(best.plan, faults=())):
        return
    parts = 2
    while len(best.plan.faults) > 1:
        faults = best.plan.faults
        size = -(-len(faults) // parts)
        if any(fails(replace(best.plan, faults=kept)) for kept in _candidates(faults, size)):
            parts = max(2, parts - 1)
        elif size == 1:
            return
        else:
            parts = min(len(faults), parts * 2)


def _candidates(faults: tuple[Injection, ...], size: int) -> Iterator[tuple[Injection, ...]]:
    chunks = [faults[at : at + size] for at in range(0, len(faults), size)]
    if size > 1:
        yield from chunks
    for number in range(len(chunks)):
        yield tuple(each for other, chunk in enumerate(chunks) if other != number for each in chunk)


def _shorter(best: Shrunk, fails: Callable[[Plan], bool]) -> None:
    """Faults at the same moments, and an end soon after the last of them; then half of the time again."""
    plan = best.plan
    last_s = max((each.at_s + each.lasts_s for each in plan.faults), default=0.0)
    if last_s + _AFTER_S < plan.duration_s:
        fails(replace(plan, duration_s=round(last_s + _AFTER_S, 3)))
    while best.plan.duration_s > 2 * _AFTER_S:
        half_s = round(best.plan.duration_s / 2, 3)
        kept = tuple(each for each in best.plan.faults if each.at_s < half_s)
        if not fails(replace(best.plan, duration_s=half_s, faults=kept)):
            return


def _less_load(best: Shrunk, fails: Callable[[Plan], bool]) -> None:
    """Each number of the load, and of its parts, at its smallest."""
    for path, least in (("hosts", 1), ("clients", 1), ("watches", 0), ("keys", 1)):
        load = _with(best.plan.load, path, least)
        if load is not None:
            fails(replace(best.plan, load=load))


def _with(load: dict[str, Any], name: str, least: int) -> dict[str, Any] | None:
    """The load with one number made small; None: it has none such, or it is small already."""
    if isinstance(load.get(name), int):
        return load | {name: least} if load[name] > least else None
    for part, value in load.items():
        if isinstance(value, dict):
            inner = _with(value, name, least)
            if inner is not None:
                return load | {part: inner}
    return None
