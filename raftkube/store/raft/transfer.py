"""Handing leadership over (Raft thesis §3.10): for a graceful stop, for `move-leader`, before removal.

The leader takes nothing more into its log (what arrives waits in the queue), lets what is in it become
applied, so that every caller has an answer, waits until the target holds it all, and sends TIMEOUT_NOW: the
target campaigns at once, by vote requests that say so and which therefore neither pre-vote nor stickiness
refuse. When another member leads, what waited is refused, definitely, naming the target. If the target does
not win in time, this member leads on and takes what waited.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from raftkube.errors import (
    DeadlineExpired,
    Indefinite,
    InvalidRequest,
    Overloaded,
    StoreError,
    Unreachable,
)
from raftkube.store.raft import messages as msg
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.outlet import Outlet
from raftkube.store.raft.private import LEADER, Core
from raftkube.store.raft.proposals import Proposals
from raftkube.store.raft.waiting import Waiter

log = structlog.get_logger(__name__)

TRANSFER_TIMEOUT_S: Final = 2.0
_REPEAT_S: Final = 0.1  # a TIMEOUT_NOW that got lost with its connection is sent again


class Transfer:
    """At most one at a time. `step` after each tick moves it on."""

    def __init__(
        self, name: str, core: Core, journal: SegmentedJournal, proposals: Proposals, outlet: Outlet
    ) -> None:
        self._name, self._core, self._journal = name, core, journal
        self._proposals, self._outlet = proposals, outlet
        self.target: str | None = None
        self._choices: list[str] = []  # who may still be tried, best last
        self._waiters: list[Waiter] = []
        self._term = 0
        self._deadline = self._turn_ends = 0.0
        self._turn_s = 0.0
        self._asked_at: float | None = None  # the target of this turn
        self._asked = False  # anybody

    @property
    def active(self) -> bool:
        """True from `begin` until its outcome is known: nothing enters the log of a leader meanwhile."""
        return bool(self._waiters)

    def begin(self, to: str | None, now: float, timeout_s: float) -> Waiter:
        """Hand over to the member `to` (an id, or a name), or to the most up-to-date one that is connected.

        The waiter gets the id of whoever leads then. It fails with DeadlineExpired or Unreachable: nobody
        was asked, or Indefinite: who was asked did not win yet. Raises, definite: InvalidRequest (no such
        voter), Unreachable (it is not connected), Overloaded (another transfer is under way).
        """
        waiter = Waiter()
        if to is not None and self._is(self._name, to):
            waiter.resolve(self._name)  # it leads already
            return waiter
        if self.active:
            if to is not None and not self._is(self.target or "", to):
                raise Overloaded(f"leadership is moving to {self.target} already", retry_after_s=0.1)
            self._waiters.append(waiter)
            return waiter
        self._choices = self._choose(to)
        self._waiters.append(waiter)
        self._term, self._deadline = self._core.term, now + timeout_s
        self._turn_s, self._asked = timeout_s / len(self._choices), False
        self._proposals.held = True
        self._next_turn(now)
        return waiter

    def _choose(self, to: str | None) -> list[str]:
        voters = self._core.voters()
        if to is None:
            connected = [name for name in voters if self._core.is_connected(name)]
            if not connected:
                raise Unreachable("no other voting member is connected to this leader")
            return sorted(connected, key=lambda name: (self._core.match_index(name), name))
        wanted = [name for name in voters if self._is(name, to)]
        if not wanted:
            known = ", ".join(sorted(voters)) or "none"
            raise InvalidRequest(f"{to!r} is no other voting member (there is: {known})", field="to")
        if not self._core.is_connected(wanted[0]):
            raise Unreachable(f"{wanted[0]} is not connected to the leader")
        return wanted

    @staticmethod
    def _is(name: str, to: str) -> bool:
        """An id is a name, with `#` and a number behind it where a member was added later."""
        return name == to or name.partition("#")[0] == to

    def _next_turn(self, now: float) -> None:
        self.target = self._choices.pop()
        self._turn_ends = min(now + self._turn_s, self._deadline) if self._choices else self._deadline
        self._asked_at = None
        log.info("leadership_transfer", member=self._name, to=self.target, term=self._term)

    def step(self, now: float) -> None:
        """Ask the target once it holds everything; note the outcome."""
        if not self._waiters:
            return
        core = self._core
        if core.role != LEADER or core.term != self._term:
            self._proposals.held = False
            leader = core.leader_name
            if leader is not None and leader != self._name:
                self._end(leader)
            elif now >= self._deadline or core.role == LEADER:
                self._end(Indefinite("leadership was given up and no other leader is known yet"))
            return
        gone = not core.is_connected(self.target or "")
        if now >= self._deadline or (gone and not self._choices):
            self._abort()
            return
        if gone or now >= self._turn_ends:
            self._next_turn(now)
        asked_at = self._asked_at
        if (asked_at is None or now >= asked_at + _REPEAT_S) and self._handed_over():
            assert self.target is not None
            self._outlet.send(self.target, [msg.TIMEOUT_NOW, self._term])
            self._asked, self._asked_at = True, now

    def _handed_over(self) -> bool:
        """Everything in the log is applied here, so that nobody waits for it, and the target holds it."""
        last = self._journal.last_index
        return (
            self._core.applied_index == last
            and self.target is not None
            and self._core.match_index(self.target) == last
        )

    def _abort(self) -> None:
        if self._asked:
            self._end(Indefinite(f"{self.target} did not take over in time; {self._name} leads on"))
        elif not self._core.is_connected(self.target or ""):
            self._end(Unreachable(f"{self.target} is not connected any more; {self._name} leads on"))
        else:
            self._end(DeadlineExpired(f"{self.target} was not up to date in time; {self._name} leads on"))

    def _end(self, outcome: str | StoreError) -> None:
        log.info("leadership_transfer_ended", member=self._name, outcome=str(outcome))
        self._proposals.held = False
        waiters, self._waiters = self._waiters, []
        self.target, self._choices = None, []
        _settle(waiters, outcome)

    def stop(self, error: StoreError) -> None:
        """The member stops: whoever waits learns it. Who was asked to lead may do so yet."""
        waiters, self._waiters = self._waiters, []
        if self._asked:
            error = Indefinite(f"{error.message}; {self.target} was asked to take over, and may yet")
        _settle(waiters, error)

    def next_deadline(self) -> float:
        """When `step` has something to do although nothing happens; infinity if never."""
        if not self._waiters:
            return float("inf")
        if self._core.role != LEADER:
            return self._deadline
        return self._turn_ends if self._asked_at is None else min(self._turn_ends, self._asked_at + _REPEAT_S)


def _settle(waiters: Iterable[Waiter], outcome: str | StoreError) -> None:
    for waiter in waiters:
        if isinstance(outcome, StoreError):
            waiter.fail(type(outcome)(outcome.message, **outcome.fields))
        else:
            waiter.resolve(outcome)
