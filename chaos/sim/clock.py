"""Virtual time: trio's own clock jumps to the next timer; each member sees it with an offset of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import trio
import trio.testing

from chaos.sim.trio_private import seed_trio

_EPOCH_S: Final = 1_760_000_000.0  # an arbitrary wall time for the simulation's start

T = TypeVar("T")


class SimClock:
    """A member's clock. `monotonic_offset_s` differs between members, as on real machines."""

    def __init__(self, *, monotonic_offset_s: float = 0.0, wall_offset_s: float = 0.0) -> None:
        self._monotonic_offset_s = monotonic_offset_s
        self.wall_offset_s = wall_offset_s

    def monotonic(self) -> float:
        return trio.current_time() + self._monotonic_offset_s

    def wall(self) -> float:
        return _EPOCH_S + trio.current_time() + self.wall_offset_s


def run_simulation(seed: int, function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run `function(*args)` under virtual time that begins at 0, with trio's scheduling drawn from `seed`."""
    seed_trio(seed)
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(function, *args, clock=clock)
