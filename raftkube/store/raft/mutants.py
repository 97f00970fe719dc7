"""Deliberate defects, by name, for the chaos harness: a checker that never found a bug proves nothing.

Production code asks `find(None)` and gets the one that changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from raftkube.errors import ConfigError
from raftkube.store.raft import messages as msg
from raftkube.store.raft.messages import Message
from raftkube.store.raft.outlet import Outlet


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is broken on purpose; every field's default is the correct behaviour."""

    name: str = ""
    acknowledge_at_proposal: bool = False  # resolve the caller before anything is replicated
    hold_appends_s: float = 0.0  # keep AppendEntries back for so long
    skip_fsync: bool = False  # write the journal, never sync it


_MUTANTS: Final = {
    mutant.name: mutant
    for mutant in (
        Mutant("ack-before-replicate", acknowledge_at_proposal=True, hold_appends_s=0.2),
        Mutant("skip-fsync", skip_fsync=True),
    )
}
_NONE: Final = Mutant()


def names() -> list[str]:
    """The names that `find` knows, sorted."""
    return sorted(_MUTANTS)


def find(name: str | None) -> Mutant:
    """The mutant called `name`; the harmless one for None. Raises ConfigError: no such mutant."""
    if name is None:
        return _NONE
    mutant = _MUTANTS.get(name)
    if mutant is None:
        raise ConfigError(f"mutant {name!r} does not exist; choose one of {', '.join(names())}")
    return mutant


class DelayedAppends:
    """An outlet that keeps AppendEntries back for `hold_s` and lets everything else pass."""

    def __init__(self, outlet: Outlet, hold_s: float, now: Callable[[], float]) -> None:
        self._outlet, self._hold_s, self._now = outlet, hold_s, now
        self._delayed: deque[tuple[float, str, Message]] = deque()

    def send(self, name: str, message: Message) -> None:
        if self._hold_s and message[0] == msg.APPEND:
            self._delayed.append((self._now() + self._hold_s, name, message))
        else:
            self._outlet.send(name, message)

    def flush(self) -> None:
        """Send what has been held long enough."""
        while self._delayed and self._delayed[0][0] <= self._now():
            _, name, message = self._delayed.popleft()
            self._outlet.send(name, message)

    def next_deadline(self) -> float:
        """When `flush` has something to do; infinity if never."""
        return self._delayed[0][0] if self._delayed else float("inf")
