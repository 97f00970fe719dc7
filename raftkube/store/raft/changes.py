"""The leader's side of membership: changes asked for, on their way through the log, and the promotions that
the leader begins by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import structlog
import trio

from raftkube.errors import LeadershipLost, MembershipRefused, NotLeader, StoreError
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.membership import (
    CONFIGURATION,
    Change,
    Promote,
    RaiseVersion,
    Remove,
    Standing,
    changed,
)
from raftkube.store.raft.private import LEADER, Core
from raftkube.store.raft.progress import Progress
from raftkube.store.raft.waiting import Waiter

log = structlog.get_logger(__name__)

# A learner that lacks no more than this delays a commit by one exchange of messages when it is promoted.
_LAG_ENTRIES_MAX = 16


class Changes:
    """At most one at a time, from the request until its entry is applied."""

    def __init__(
        self,
        name: str,
        core: Core,
        journal: SegmentedJournal,
        progress: Progress,
        silent_s: float,
        common_version: Callable[[Iterable[str]], int],
    ) -> None:
        self._name, self._core, self._journal, self._progress = name, core, journal, progress
        self._silent_s, self._common_version = silent_s, common_version
        self.raised = trio.Event()  # the version, by the last change that did; it may have failed
        self.raised.set()
        self._waiting: tuple[bytes, Waiter] | None = None
        self._in_flight: tuple[int, int, Waiter] | None = None
        self._resolutions: list[tuple[Waiter, Any]] = []

    def standing(self, now: float) -> Standing:
        """What the conditions of a change look at; meaningful on a leader only."""
        core, held = self._core, self._journal.configurations
        others = [id_ for id_ in held.effective.members if id_ != self._name]
        # An index above 0 was acknowledged in this term: a learner that was never started has none.
        near = max(1, self._journal.last_index - _LAG_ENTRIES_MAX)
        answering = [id_ for id_ in others if now - core.last_response(id_) < self._silent_s]
        caught_up = [
            id_ for id_ in others if core.match_index(id_) >= near and not self._progress.installing(id_)
        ]
        return Standing(
            leader=self._name,
            committed_in_term=core.role == LEADER and self._journal.term_at(core.commit_index) == core.term,
            change_under_way=self._waiting is not None or held.index > core.commit_index,
            answering=frozenset((*answering, self._name)),
            caught_up=frozenset(caught_up),
        )

    def request(self, change: Change, now: float) -> Waiter:
        """Change the members; the waiter gets the Configuration once it is committed and applied here.

        Raises MembershipRefused: nothing was proposed.
        """
        configuration = changed(self._journal.configurations.effective, change, self.standing(now))
        waiter = Waiter()
        self._waiting = (CONFIGURATION + configuration.encode(), waiter)
        log.info("membership_change", member=self._name, change=repr(change))
        return waiter

    def must_hand_over(self, change: Change, now: float) -> bool:
        """This leader is to be removed, and may be once another leads. Raises MembershipRefused: it may
        not."""
        if not isinstance(change, Remove) or change.id != self._name:
            return False
        standing = self.standing(now)
        changed(self._journal.configurations.effective, change, standing._replace(leader=""))
        return True

    def step(self, now: float) -> None:
        """Raise the cluster's version if all members know a higher one; promote a learner that was added for
        that and has caught up."""
        held = self._journal.configurations.effective
        common = self._common_version(held.members)
        if common > held.cluster_version:
            self._raise(common, now)
        for id_ in sorted(self._journal.configurations.effective.promote):
            try:
                self.request(Promote(id_), now)
            except MembershipRefused:
                continue
            return

    def _raise(self, version: int, now: float) -> None:
        try:
            waiter = self.request(RaiseVersion(version), now)
        except MembershipRefused:
            return
        raised = self.raised = trio.Event()
        waiter.tell(lambda outcome: raised.set())

    @property
    def can_append(self) -> bool:
        """A change waits for the log."""
        return self._waiting is not None

    def take(self) -> bytes:
        """Its command, which must enter the log now."""
        assert self._waiting is not None
        command, waiter = self._waiting
        self._waiting = None
        self._in_flight = (self._journal.last_index + 1, self._core.term, waiter)
        return command

    def applied(self, index: int, term: int) -> None:
        """The configuration at (index, term) is committed; who asked for it learns at `flush`."""
        if self._in_flight is None or self._in_flight[0] != index:
            return
        _, mine, waiter = self._in_flight
        self._in_flight = None
        if mine == term:
            self._resolutions.append((waiter, self._journal.configurations.at(index)))
        else:
            waiter.fail(LeadershipLost("another leader's entry took this change's place"))

    def flush(self) -> None:
        """The journal is synced: tell the outcomes."""
        resolutions, self._resolutions = self._resolutions, []
        for waiter, configuration in resolutions:
            waiter.resolve(configuration)

    def step_down(self, leader: str | None) -> None:
        """This member leads no more: what is in the log may be committed yet."""
        lost = LeadershipLost("this member lost its leadership before the change was known to be committed")
        self._fail(NotLeader("this member does not lead any more", leader=leader), lost)

    def stop(self) -> None:
        """The member stops."""
        lost = LeadershipLost("this member stopped before the change was known to be committed")
        self._fail(lost, lost)
        resolutions, self._resolutions = self._resolutions, []
        for waiter, _ in resolutions:  # applied in a step that did not come to its end
            waiter.fail(LeadershipLost(lost.message))

    def _fail(self, waiting: StoreError, in_flight: StoreError) -> None:
        if self._waiting is not None:
            self._waiting[1].fail(waiting)
        if self._in_flight is not None:
            self._in_flight[2].fail(in_flight)
        self._waiting = self._in_flight = None
