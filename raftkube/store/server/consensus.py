"""What the server needs of consensus, and how reads share its rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
import trio

from raftkube.errors import NoLeader, StoreError
from raftkube.store.raft.membership import Change, Configuration

log = structlog.get_logger(__name__)

_ROUNDS_AT_ONCE: Final = 4
_ROUND_S: Final = 5.0


Done = Callable[[Any], None]  # with a result or a StoreError


@dataclass(frozen=True, slots=True)
class ConsensusView:
    """Where this member stands. `leader` is a member's id, None if none is known."""

    role: str
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    last_index: int = 0
    journal_bytes: int = 0
    errors: tuple[str, ...] = ()  # it takes part in nothing any more
    warnings: tuple[str, ...] = ()  # it may come to that
    id: str = ""
    learners: tuple[str, ...] = ()
    cluster_version: int = 1


class Consensus(Protocol):
    """One member of the replicated log."""

    async def propose(self, operation: Any) -> Any:
        """Commit and apply `operation` (its wire form); what apply answered. Raises StoreError."""
        ...

    def submit(self, operations: list[Any], done: Done, deadline: float = ...) -> None:
        """As `propose`, of several at once, answering through `done`, which must not raise, with the list of
        results or one StoreError; not proposed any more after `deadline`. Raises what is known at once."""
        ...

    async def read_index(self) -> object:
        """Return once all that was committed before the call is applied here. Raises StoreError."""
        ...

    async def transfer_leadership(self, to: str | None = None) -> str:
        """Make `to` lead (None: the best); who leads then. Raises StoreError: this member leads on."""
        ...

    async def change_members(self, change: Change) -> Configuration:
        """Change the members; who they are then. Raises StoreError, MembershipRefused among them."""
        ...

    def view(self) -> ConsensusView:
        """Where this member stands now."""
        ...


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
                try:
                    done(outcome)
                except Exception:  # the boundary: one reader's trouble is no other's, nor the member's
                    log.exception("read_failed")
        self._rounds -= 1

    async def _round(self) -> StoreError | None:
        with trio.move_on_after(_ROUND_S):
            try:
                await self._consensus.read_index()
            except StoreError as error:
                return error
            return None
        return NoLeader("no leader confirmed the read; nothing was read")
