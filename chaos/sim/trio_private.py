"""The private names of trio that simulations touch: the seed of its scheduling, and its run queue.

A task belongs to the host that `HOST` says in its context; tasks inherit it from whoever starts them. A
host that stands still (SIGSTOP) takes no step: what becomes runnable waits until it goes on, while time
passes, deadlines expire and its kernel (the network) goes on taking bytes for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar

import trio
import trio._core._run as _trio_run

HOST: ContextVar[str] = ContextVar("HOST", default="")


def seed_trio(seed: int) -> None:
    """Make trio's scheduler repeat itself for one seed; before `trio.run`."""
    _trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _trio_run._r.seed(seed)


class _RunQueue(deque[trio.lowlevel.Task]):
    """trio's run queue, with the tasks of standing hosts beside it, in their order."""

    def __init__(self, tasks: Iterable[trio.lowlevel.Task]) -> None:
        super().__init__(tasks)
        self.held: dict[str, list[trio.lowlevel.Task]] = {}

    def append(self, task: trio.lowlevel.Task) -> None:
        if self.held:
            waiting = self.held.get(_host_of(task))
            if waiting is not None:
                waiting.append(task)
                return
        super().append(task)


def _host_of(task: trio.lowlevel.Task) -> str:
    return task.context.get(HOST, "")


def _queue() -> _RunQueue:
    runner = _trio_run.GLOBAL_RUN_CONTEXT.runner
    if not isinstance(runner.runq, _RunQueue):
        runner.runq = _RunQueue(runner.runq)
    return runner.runq


def stand_still(host: str) -> None:
    """From the end of this scheduling round on, no task of `host` takes a step. No effect if it stands."""
    queue = _queue()
    if host in queue.held:
        return
    runnable = list(queue)
    queue.clear()
    queue.held[host] = []
    for task in runnable:
        queue.append(task)


def go_on(host: str) -> None:
    """The end of `stand_still`."""
    queue = _queue()
    for task in queue.held.pop(host, ()):
        queue.append(task)


def standing() -> frozenset[str]:
    """The hosts that stand still."""
    return frozenset(_queue().held)


class _StepCounter(trio.abc.Instrument):
    """Calls `reached` right before the step number `steps` of the tasks of `host`, once."""

    def __init__(self, host: str, steps: int, reached: Callable[[], None]) -> None:
        self._host, self._left, self._reached = host, steps, reached

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if _host_of(task) == self._host:
            self._left -= 1
            if self._left == 0:
                self._reached()


class AtStep:
    """A context in which `reached` is called before the step number `steps` of `host`: any await of it."""

    def __init__(self, host: str, steps: int, reached: Callable[[], None]) -> None:
        self._counter = _StepCounter(host, steps, reached)

    def __enter__(self) -> None:
        trio.lowlevel.add_instrument(self._counter)

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self._counter)
