"""What the server needs of consensus, and how it asks: proposals with deadlines, reads sharing rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from raftkube.clock import Clock
from raftkube.errors import DeadlineExpired, NoLeader, ProposalTimeout, StoreError

_ROUNDS_AT_ONCE: Final = 4
_ROUND_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ConsensusView:
    """Where this member stands. `leader` is a member's name, None if none is known."""

    role: str
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    last_index: int = 0
    journal_bytes: int = 0
    errors: tuple[str, ...] = ()


class Consensus(Protocol):
    """One member of the replicated log."""

    async def propose(self, operation: bytes) -> Any:
        """Commit and apply `operation`; what apply answered. Raises StoreError, definite or not."""
        ...

    async def read_index(self) -> object:
        """Return once all that was committed before the call is applied here. Raises StoreError."""
        ...

    def view(self) -> ConsensusView:
        """Where this member stands now."""
        ...


Done = Callable[[Any], None]  # with a result or a StoreError


class Proposals:
    """Proposes for many callers; each is answered through its `done`."""

    def __init__(self, consensus: Consensus, clock: Clock, nursery: trio.Nursery) -> None:
        self._consensus = consensus
        self._clock = clock
        self._nursery = nursery

    def submit(self, operation: bytes, deadline: float, done: Done) -> None:
        """Propose `operation` unless `deadline` (monotonic seconds) has passed by then."""
        self._nursery.start_soon(self._propose, operation, deadline, done)

    async def _propose(self, operation: bytes, deadline: float, done: Done) -> None:
        if self._clock.monotonic() >= deadline:
            done(DeadlineExpired("the deadline passed before the operation was proposed"))
            return
        outcome: Any = ProposalTimeout("proposed, but not known to be committed by the deadline")
        with trio.move_on_at(deadline):
            try:
                outcome = await self._consensus.propose(operation)
            except StoreError as error:
                outcome = error
        done(outcome)


class ReadGate:
    """Linearizable reads: waiting reads share rounds, and each round starts after its reads arrived."""

    def __init__(self, consensus: Consensus, nursery: trio.Nursery) -> None:
        self._consensus = consensus
        self._nursery = nursery
        self._waiting: list[Done] = []
        self._rounds = 0

    def submit(self, done: Done) -> None:
        """Call `done` with None once reading here is linearizable, or with the StoreError why not."""
        self._waiting.append(done)
        if self._rounds < _ROUNDS_AT_ONCE:
            self._rounds += 1
            self._nursery.start_soon(self._run_rounds)

    async def _run_rounds(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            outcome = await self._round()
            for done in waiting:
                done(outcome)
        self._rounds -= 1

    async def _round(self) -> StoreError | None:
        with trio.move_on_after(_ROUND_S):
            try:
                await self._consensus.read_index()
            except StoreError as error:
                return error
            return None
        return NoLeader("no leader confirmed the read; nothing was read")
