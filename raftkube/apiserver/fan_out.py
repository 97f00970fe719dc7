"""When followers are told of changes: at once while that is cheap, gathered while it is not.

A send costs about as much with one event as with twenty. So after a round over many followers, what happens
within about the time that the round took, and never longer than `GATHER_S_MAX`, is told in one round; with
few followers nothing is ever gathered. Large rounds let other tasks run in between. Time is trio's: in a
simulation a round takes none, and nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import trio

GATHER_S_MAX: Final = 0.02
_GATHER_S_MIN: Final = 0.001  # less is not worth a timer
_SLICE: Final = 128  # followers told without letting others run


class Follower(Protocol):
    """Who is told of a resource's changes, synchronously, by the task that applies them."""

    def advance(self) -> None:
        """There are new events."""
        ...

    def end(self) -> None:
        """The log no longer has what this follower would need next."""
        ...


class Followed(Protocol):
    """What changed: its followers, in the order of coming."""

    @property
    def followers(self) -> dict[Follower, None]: ...


class FanOut:
    """`run` must be running."""

    def __init__(self) -> None:
        self._changed: dict[Followed, None] = {}
        self._wake = trio.Event()
        self._in_round = False
        self._gather_until = float("-inf")

    def tell(self, changed: Iterable[Followed]) -> None:
        """Tell whoever follows one of these, now or soon."""
        self._changed |= dict.fromkeys(changed)
        waits = self._in_round or trio.current_time() < self._gather_until
        if waits or sum(len(followed.followers) for followed in self._changed) > _SLICE:
            self._wake.set()
        else:
            self._tell_few()

    async def run(self) -> None:
        """Tell what was gathered, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep_until(self._gather_until)
            began = trio.current_time()
            self._in_round = True
            try:
                await self._tell_many()
            finally:
                self._in_round = False
            self._gather(trio.current_time() - began)

    def _tell_few(self) -> None:
        began = trio.current_time()
        changed, self._changed = self._changed, {}
        for followed in changed:
            for follower in list(followed.followers):
                follower.advance()
        self._gather(trio.current_time() - began)

    async def _tell_many(self) -> None:
        changed, self._changed = self._changed, {}
        for followed in changed:
            followers = list(followed.followers)
            for start in range(0, len(followers), _SLICE):
                for follower in followers[start : start + _SLICE]:
                    if follower in followed.followers:  # it may have left meanwhile
                        follower.advance()
                await trio.lowlevel.checkpoint()

    def _gather(self, took_s: float) -> None:
        if took_s >= _GATHER_S_MIN:
            self._gather_until = trio.current_time() + min(took_s, GATHER_S_MAX)
