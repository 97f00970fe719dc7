"""Linearizable reads without writing (ReadIndex, Raft thesis §6.4).

The leader notes its commit index, asks all members in a round that begins after the read arrived, and
answers once a majority still was in its term; the read then waits until that index is applied where it is
served. All reads that wait share a round; a follower asks the leader, with one request at a time for all
its readers. A leader that has not committed in its own term does not know the commit index yet and waits
(§5.4.2's no-op ends that).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from raftkube.errors import NoLeader
from raftkube.rng import Rng
from raftkube.store.raft import messages as msg
from raftkube.store.raft.counters import SlowNotes
from raftkube.store.raft.outlet import Outlet
from raftkube.store.raft.waiting import Waiter

_REPEAT_S: Final = 0.1  # a round or request that got lost with its connection is sent again


class ReadView(NamedTuple):
    """The moment's state of the member. `committed_in_term`: a leader whose commit index is of its term."""

    now: float
    leading: bool
    term: int
    leader: str | None
    commit_index: int
    applied_index: int
    committed_in_term: bool


class _Local(NamedTuple):
    waiter: Waiter
    deadline: float


class Reads:
    """The reads of one member. `step` after each tick moves them on."""

    def __init__(self, outlet: Outlet, timeout_s: float, rng: Rng, slow_s: float = 0.5) -> None:
        self._outlet, self._timeout_s = outlet, timeout_s
        self._voters: list[str] = []  # the others'
        self._majority = 1
        self._new: list[_Local] = []  # arrived since the last round or request began
        self._asked: list[_Local] = []  # in the round or request under way
        self._remote_new: list[tuple[str, int]] = []
        self._remote_asked: list[tuple[str, int]] = []
        self._applying: list[tuple[int, int, _Local]] = []
        # Numbers begin anywhere: an answer to what this member asked before a restart must match none.
        self._round, self._round_term, self._round_index = rng.getrandbits(48), -1, 0
        self._acks: set[str] = set()
        self._sent_at: float | None = None
        self._mode: tuple[bool, int, str | None] | None = None
        self._count = 0
        self._began_at = 0.0
        self.rounds = self.failed = 0
        self.slow = SlowNotes("slow_read_index", slow_s)

    def set_voters(self, others: Iterable[str], majority: int) -> None:
        """These other members vote from now on; learners' answers never count."""
        self._voters, self._majority = sorted(others), majority
        self._acks.intersection_update(self._voters)

    def add(self, waiter: Waiter, now: float) -> None:
        """A read of this member; `waiter` gets None once the read may be served here."""
        self._new.append(_Local(waiter, now + self._timeout_s))

    def receive(self, name: str, message: list[Any], view: ReadView) -> None:
        """A read message from the member `name`."""
        kind = message[0]
        if kind == msg.READ_ROUND:
            if message[1] == view.term:
                self._outlet.send(name, [msg.READ_ROUND_OK, message[1], message[2]])
            elif message[1] < view.term:
                self._outlet.send(name, [msg.TERM_AHEAD, view.term])
        elif kind == msg.READ_ROUND_OK:
            mine = view.leading and message[1:] == [view.term, self._round] and self._round_term == view.term
            if mine and name in self._voters:
                self._acks.add(name)
        elif kind == msg.READ_REQUEST:
            if view.leading:
                self._remote_new.append((name, message[1]))
        elif message[1] == self._round and name == view.leader and not view.leading:
            self._granted(message[2])

    def step(self, view: ReadView) -> None:
        """Begin or finish rounds; wake the reads whose index is applied; fail those past their deadline."""
        mode = (view.leading, view.term, view.leader)
        if mode != self._mode:
            self._mode = mode
            self._begin_again()
        if view.leading:
            self._lead(view)
        elif view.leader is not None:
            self._follow(view)
        while self._applying and self._applying[0][0] <= view.applied_index:
            heapq.heappop(self._applying)[2].waiter.resolve(None)
        self._expire(view.now)

    def next_deadline(self) -> float:
        """When `step` has something to do although nothing happens; infinity if never."""
        waiting = bool(self._new or self._asked or self._remote_new or self._remote_asked)
        at = float("inf")
        if waiting and self._sent_at is not None:
            at = self._sent_at + _REPEAT_S
        for group in (self._asked, self._new):
            if group:
                at = min(at, group[0].deadline)
        if self._applying:
            at = min(at, min(local.deadline for _, _, local in self._applying))
        return at

    def fail_all(self, error: Exception) -> None:
        """The member stops."""
        for local in (*self._new, *self._asked, *(local for _, _, local in self._applying)):
            local.waiter.fail(error)
        self._new, self._asked, self._applying = [], [], []

    def _begin_again(self) -> None:
        """Another term or leader: what was asked is asked anew; remote readers ask anew themselves."""
        self._new[:0] = self._asked
        self._asked, self._remote_new, self._remote_asked = [], [], []
        self._sent_at, self._acks = None, set()

    def _lead(self, view: ReadView) -> None:
        if self._sent_at is not None and len(self._acks) + 1 >= self._majority:
            self._confirmed()
        if self._sent_at is None:
            if (self._new or self._remote_new) and view.committed_in_term:
                self._begin_round(view)
        elif view.now - self._sent_at >= _REPEAT_S:
            self._note_slow(view)
            self._send_round(view)

    def _begin_round(self, view: ReadView) -> None:
        self._asked, self._new = self._new, []
        self._remote_asked, self._remote_new = self._remote_new, []
        self._round, self._round_term, self._round_index = self._round + 1, view.term, view.commit_index
        self._acks = set()
        self._began_at = view.now
        self.rounds += 1
        self._send_round(view)
        if self._majority == 1:
            self._confirmed()

    def _send_round(self, view: ReadView) -> None:
        self._sent_at = view.now
        for name in self._voters:
            self._outlet.send(name, [msg.READ_ROUND, view.term, self._round])

    def _confirmed(self) -> None:
        for name, number in self._remote_asked:
            self._outlet.send(name, [msg.READ_INDEX, number, self._round_index])
        self._remote_asked = []
        self._granted(self._round_index)

    def _follow(self, view: ReadView) -> None:
        if self._sent_at is None:
            if not self._new:
                return
            self._asked, self._new = self._new, []
            self._round += 1
            self._began_at = view.now
            self.rounds += 1
        elif view.now - self._sent_at < _REPEAT_S:
            return
        else:
            self._note_slow(view)
        self._sent_at = view.now
        assert view.leader is not None
        self._outlet.send(view.leader, [msg.READ_REQUEST, self._round])

    def _note_slow(self, view: ReadView) -> None:
        waited_s = view.now - self._began_at
        if waited_s >= self.slow.expected_s:
            self.slow.note(view.now, waited_s, leader=view.leader, term=view.term, acks=len(self._acks))

    def _granted(self, index: int) -> None:
        for local in self._asked:
            self._count += 1
            heapq.heappush(self._applying, (index, self._count, local))
        self._asked, self._sent_at = [], None

    def _expire(self, now: float) -> None:
        if not (self._new or self._asked or self._applying):
            return
        for group in (self._new, self._asked, [local for _, _, local in self._applying]):
            for local in group:
                if local.deadline <= now:
                    self.failed += 1
                    local.waiter.fail(NoLeader("no leader confirmed the read in time; it had no effect"))
        self._new = [local for local in self._new if local.deadline > now]
        self._asked = [local for local in self._asked if local.deadline > now]
        if any(local.deadline <= now for _, _, local in self._applying):
            self._applying = [item for item in self._applying if item[2].deadline > now]
            heapq.heapify(self._applying)
