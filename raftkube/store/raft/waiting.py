"""A task that waits for one value, as cheaply as trio allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from outcome import Error, Value


class Waiter:
    """Resolved once, by whoever knows; awaited by at most one task, or told to a callback."""

    __slots__ = ("_done", "_outcome", "_task")

    def __init__(self) -> None:
        self._done: Callable[[Any], None] | None = None
        self._task: trio.lowlevel.Task | None = None
        self._outcome: Value[Any] | Error | None = None

    @property
    def resolved(self) -> bool:
        """True once a value or an error is known."""
        return self._outcome is not None

    def resolve(self, value: Any) -> None:
        """The waiting task goes on with `value`; a second answer is ignored."""
        self._settle(Value(value))

    def fail(self, error: Exception) -> None:
        """The waiting task raises `error`; a second answer is ignored."""
        self._settle(Error(error))

    def _settle(self, outcome: Value[Any] | Error) -> None:
        if self._outcome is None:
            self._outcome = outcome
            if self._done is not None:
                self._done(outcome.value if isinstance(outcome, Value) else outcome.error)
            if self._task is not None:
                trio.lowlevel.reschedule(self._task, outcome)
                self._task = None

    def tell(self, done: Callable[[Any], None]) -> None:
        """Call `done`, which must not raise, with the value or the error once it is known; it is not yet."""
        self._done = done

    async def wait(self) -> Any:
        """The value. Cancelled: nothing but this waiting ends."""
        if self._outcome is not None:
            await trio.lowlevel.checkpoint()
            return self._outcome.unwrap()
        self._task = trio.lowlevel.current_task()

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)
