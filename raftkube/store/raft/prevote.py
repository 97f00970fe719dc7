"""Pre-vote: a term is raised only after a majority said it would vote (Raft thesis §9.6), and a member
that hears its leader says no (leader stickiness, §6.4.1's note on disruptive servers).

Without the first a half-isolated member burns a term every election timeout; without the second it
deposes a healthy leader when it returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

NEVER: Final = float("-inf")


class PreVote:
    """The rounds this member asks for, and when it last heard its leader."""

    def __init__(self, *, majority: int, sticky_s: float, retry_s: float) -> None:
        self.majority = majority  # of the voters
        self._sticky_s, self._retry_s = sticky_s, retry_s
        self._round = 0
        self._term = -1
        self._granted: set[str] = set()
        self._asked_at = NEVER
        self._heard_at = NEVER

    def heard_leader(self, now: float) -> None:
        """A message of the current leader arrived."""
        self._heard_at = now

    def lost_leader(self) -> None:
        """The leader's connection was reset: nothing speaks for it any more."""
        self._heard_at = NEVER

    def hears_leader(self, now: float) -> bool:
        """True while a leader is believed to be alive: no vote for anyone else."""
        return now - self._heard_at < self._sticky_s

    def passed(self, now: float, term: int) -> bool:
        """True once, when a majority (this member among it) granted the round of `term`."""
        fresh = self._term == term and now - self._asked_at < self._sticky_s
        if not (fresh or self.majority == 1) or len(self._granted) + 1 < self.majority:
            return False
        self._asked_at, self._granted = NEVER, set()
        return True

    def next_round(self, now: float, term: int) -> int | None:
        """The number of a new round to ask for; None while the last one may still be answered."""
        if now < self.retry_at:
            return None
        self._round, self._term, self._granted, self._asked_at = self._round + 1, term, set(), now
        return self._round

    @property
    def retry_at(self) -> float:
        """When the next round may begin."""
        return self._asked_at + self._retry_s

    def forget(self, kept: Iterable[str]) -> None:
        """Only these may have granted something: the voters have changed."""
        self._granted.intersection_update(kept)

    def granted(self, name: str, number: int) -> None:
        """`name` would vote for us; of another round it counts nothing."""
        if number == self._round:
            self._granted.add(name)
