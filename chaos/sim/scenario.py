"""Scenarios: a group of either kind brought into one exact situation, by the network and the disks alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from chaos.sim.clock import run_simulation
from chaos.sim.groups import Group, GroupOptions, Kind, make_group
from raftkube.errors import StoreError

T = TypeVar("T")
_LOOK_S = 0.001


class Told:
    """What a client was told of its proposal: "acknowledged", "refused" (definite), "unknown", or None."""

    def __init__(self) -> None:
        self.answer: str | None = None


class Scenario:
    """A running group, and clients that wait in the background."""

    def __init__(self, group: Group, nursery: trio.Nursery) -> None:
        self.group, self.network, self._nursery = group, group.network, nursery

    def others(self, *names: str) -> list[str]:
        """The members but these."""
        return [name for name in self.group.names if name not in names]

    def propose(self, name: str, *operations: bytes) -> list[Told]:
        """Propose each at `name`, in this order; the answers come as they come."""
        told = [Told() for _ in operations]
        for operation, answer in zip(operations, told, strict=True):
            self._nursery.start_soon(self._propose, name, operation, answer)
        return told

    async def _propose(self, name: str, operation: bytes, told: Told) -> None:
        try:
            await self.group.propose_on(name, operation)
            told.answer = "acknowledged"
        except StoreError as error:
            told.answer = "refused" if error.definite else "unknown"

    async def write(self, name: str, *operations: bytes, timeout_s: float = 30.0) -> None:
        """Propose one after the other at `name`; all must be acknowledged."""
        with trio.fail_after(timeout_s):
            for operation in operations:
                await self.group.propose_on(name, operation)

    async def until(self, condition: Callable[[], bool], *, timeout_s: float = 30.0) -> bool:
        """Wait for the condition, looked at every millisecond; False if it did not come."""
        deadline = trio.current_time() + timeout_s
        while trio.current_time() < deadline:
            if condition():
                return True
            await trio.sleep(_LOOK_S)
        return condition()

    async def leader(self, among: list[str] | None = None, *, timeout_s: float = 30.0) -> str:
        """A leader that has committed in its own term, one of `among`."""
        found: list[str] = []

        def ready() -> bool:
            found[:] = [
                name
                for name in self.group.leaders()
                if (among is None or name in among)
                and self.group.commit_index(name) == self.group.last_index(name)
                and self.group.applied_index(name) == self.group.commit_index(name)
            ]
            return bool(found)

        assert await self.until(ready, timeout_s=timeout_s), f"no leader among {among or 'all'}"
        return found[0]

    async def lead(self, name: str) -> None:
        """Make `name` the leader, by cutting off whoever leads instead."""
        for _ in range(100):
            leader = await self.leader()
            if leader == name:
                await trio.sleep(0.5)  # its first entry reaches everybody
                return
            self.cut_off(leader, told=False)  # who sees a reset campaigns in a fixed order
            await self.leader(self.others(leader))
            self.network.heal()
            await trio.sleep(1.0)
        raise AssertionError(f"{name} never came to lead")

    def cut_off(self, *names: str, told: bool = True) -> None:
        """Nothing passes between `names` and the rest; their connections break if `told`."""
        self.network.partition(set(names), set(self.others(*names)))
        if told:
            for name in names:
                for other in self.others(*names):
                    self.network.reset(name, other)

    async def restart_all(self) -> None:
        """SIGKILL of all, and a start."""
        for name in self.group.names:
            await self.group.kill(name)
        await self.group.start_all()

    def holders(self, operation: bytes) -> list[str]:
        """The running members whose state machine holds it."""
        return [name for name in self.group.up() if operation in self.group.operations(name)]


def run(
    kind: Kind,
    story: Callable[[Scenario], Awaitable[T]],
    options: GroupOptions = GroupOptions(),  # noqa: B008 frozen
    *,
    seed: int = 1,
) -> T:
    """Start a group and tell the story, in virtual time."""

    async def main() -> T:
        async with trio.open_nursery() as nursery:
            group = make_group(kind, seed, nursery, options)
            await group.start_all()
            result = await story(Scenario(group, nursery))
            nursery.cancel_scope.cancel()
        return result

    try:
        return run_simulation(seed, main)
    except BaseExceptionGroup as group:
        raise _only(group) from None


def _only(error: BaseException) -> BaseException:
    """What a test failed with, out of the nurseries around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
