"""Virtual time: it jumps to the next event; each member sees it with an offset of its own.

The next event is trio's next deadline or the next call that somebody asked for (`call_at`: the network's
deliveries, which would cost a cancel scope each as timers of trio's).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import trio

from chaos.sim.trio_private import seed_trio

_EPOCH_S: Final = 1_760_000_000.0  # an arbitrary wall time for the simulation's start
_WAIT_S: Final = 0.5
_WAITS_MAX: Final = 10

T = TypeVar("T")


class VirtualClock(trio.abc.Clock):
    """trio asks how long to sleep when no task can run: that is when time moves on, at once."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._waits = 0

    def start_clock(self) -> None:
        """Time begins at 0."""

    def current_time(self) -> float:
        return self._now_s

    def jump(self, seconds: float) -> None:
        """So much passes at once, for all hosts, within a step of a task; what was due meanwhile has come."""
        self._now_s += seconds
        self._make_due_calls()

    def _make_due_calls(self) -> None:
        while self._calls and self._calls[0][0] <= self._now_s:
            heapq.heappop(self._calls)[2]()

    def call_at(self, at_s: float, call: Callable[[], None]) -> None:
        """Call it once, at that time, outside of any task; it may reschedule tasks and must not raise."""
        heapq.heappush(self._calls, (at_s, next(self._numbers), call))

    def deadline_to_sleep_time(self, deadline: float) -> float:
        calls = self._calls
        if calls and calls[0][0] <= deadline:
            self._now_s = max(self._now_s, calls[0][0])
            self._make_due_calls()
        elif deadline == float("inf"):
            return self._wait_for_trio()
        else:
            self._now_s = max(self._now_s, deadline)
        self._waits = 0
        return 0.0

    def _wait_for_trio(self) -> float:
        """Only trio's own hand-over between threads, at the end of a run, is left to wake anybody."""
        self._waits += 1
        if self._waits > _WAITS_MAX:
            raise RuntimeError("every task of this simulation waits for something that will never happen")
        return _WAIT_S


def call_at(at_s: float, call: Callable[[], None]) -> None:
    """`call()` at that time, outside of any task, under whatever clock there is."""
    clock = trio.lowlevel.current_clock()
    if isinstance(clock, VirtualClock):
        clock.call_at(at_s, call)
    else:
        trio.lowlevel.spawn_system_task(_call_later, at_s, call)


async def _call_later(at_s: float, call: Callable[[], None]) -> None:
    await trio.sleep_until(at_s)
    call()


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
    return trio.run(function, *args, clock=VirtualClock())
