"""The lease clock in virtual time: who is expired when, and who is not."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from raftkube.clock import SystemClock
from raftkube.errors import NoLeader, NotLeader, StoreError
from raftkube.store.core import LeaseView
from raftkube.store.server.compaction import HistoryWindow
from raftkube.store.server.lease_clock import LeaseClock
from raftkube.store.server.settings import ServerSettings
from raftkube.types import LeaseId
from raftkube.wire.store import LeaseExpire, LeaseResult


class Rig:
    """A lease clock whose barrier and proposals are recorded, and can be made to fail."""

    def __init__(self) -> None:
        self.clock = LeaseClock(ServerSettings(), SystemClock(), barrier=self.barrier, propose=self.propose)
        self.barriers = 0
        self.refusals: list[StoreError] = []
        self.during_barrier = lambda: None
        self.expired: list[tuple[float, LeaseExpire]] = []
        self.start = trio.current_time()

    async def barrier(self) -> None:
        self.barriers += 1
        await trio.lowlevel.checkpoint()
        self.during_barrier()
        if self.refusals:
            raise self.refusals.pop(0)

    async def propose(self, op: LeaseExpire) -> None:
        await trio.lowlevel.checkpoint()
        self.expired.append((round(trio.current_time() - self.start, 3), op))
        self.clock.observe(LeaseResult(1, op.lease, 0, op.renewal))

    def grant(self, lease: int, ttl_s: int, renewal: int = 0) -> None:
        self.clock.observe(LeaseResult(1, lease, ttl_s, renewal))


@pytest.fixture
def rig(autojump_clock: MockClock, nursery: trio.Nursery) -> Rig:
    made = Rig()
    nursery.start_soon(made.clock.run)
    return made


async def test_a_lease_expires_after_its_ttl_behind_a_barrier(rig: Rig, autojump_clock: MockClock) -> None:
    rig.clock.lead([])
    rig.grant(7, 3)
    assert rig.clock.remaining_s(7) == 3
    await trio.sleep(10)
    assert rig.expired == [(3.0, LeaseExpire(7, 0))]
    assert rig.barriers == 1
    assert rig.clock.remaining_s(7) == -1


async def test_renewals_put_it_off_and_are_named_in_the_proposal(rig: Rig, autojump_clock: MockClock) -> None:
    rig.clock.lead([])
    rig.grant(7, 3)
    for renewal in (1, 2):
        await trio.sleep(2)
        rig.grant(7, 3, renewal)
    await trio.sleep(10)
    assert rig.expired == [(7.0, LeaseExpire(7, 2))]


async def test_leases_end_in_their_own_order(rig: Rig, autojump_clock: MockClock) -> None:
    rig.clock.lead([])
    for lease, ttl_s in ((1, 5), (2, 1), (3, 3)):
        rig.grant(lease, ttl_s)
    await trio.sleep(10)
    assert [(at, op.lease) for at, op in rig.expired] == [(1.0, 2), (3.0, 3), (5.0, 1)]


async def test_a_new_leader_gives_every_lease_its_whole_ttl(rig: Rig, autojump_clock: MockClock) -> None:
    await trio.sleep(100)
    rig.clock.lead([LeaseView(LeaseId(7), 4, 9, 1)])
    await trio.sleep(10)
    assert rig.expired == [(104.0, LeaseExpire(7, 9))]


async def test_a_follower_expires_nothing(rig: Rig, autojump_clock: MockClock) -> None:
    rig.grant(1, 1)
    rig.clock.lead([])
    rig.grant(2, 2)
    rig.clock.follow()
    await trio.sleep(10)
    assert rig.expired == []


async def test_a_deposed_leader_stops_at_the_barrier(rig: Rig, autojump_clock: MockClock) -> None:
    rig.clock.lead([])
    rig.refusals = [NotLeader("deposed"), NoLeader("cut off")]
    rig.grant(7, 1)
    await trio.sleep(1.9)
    assert rig.expired == []
    await trio.sleep(1)  # it was confirmed after all
    assert rig.expired == [(2.0, LeaseExpire(7, 0))]


async def test_a_renewal_that_the_barrier_drains_saves_the_lease(rig: Rig, autojump_clock: MockClock) -> None:
    rig.clock.lead([])
    rig.grant(7, 2)

    def drained() -> None:
        rig.during_barrier = lambda: None
        rig.grant(7, 2, 1)

    rig.during_barrier = drained
    await trio.sleep(3.9)
    assert rig.expired == []
    await trio.sleep(1)
    assert rig.expired == [(4.0, LeaseExpire(7, 1))]


async def test_time_while_the_process_was_stopped_does_not_count(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    rig = Rig()
    nursery.start_soon(rig.clock.run)
    rig.clock.lead([])
    rig.grant(7, 3)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(20):  # two seconds of work
        mock_clock.jump(0.1)
        await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(20)  # SIGSTOP, SIGCONT
    await trio.testing.wait_all_tasks_blocked()
    assert rig.expired == []
    assert 0.7 < rig.clock.remaining_s(7) <= 1.25  # a second was left, to within a look
    for _ in range(14):
        mock_clock.jump(0.1)
        await trio.testing.wait_all_tasks_blocked()
    assert [op.lease for _, op in rig.expired] == [7]


async def test_many_renewals_leave_no_rubbish_behind(rig: Rig, autojump_clock: MockClock) -> None:
    rig.clock.lead([])
    for renewal in range(5000):
        rig.grant(7, 60, renewal)
    assert len(rig.clock._heap) < 200


def test_the_history_window_is_bounded_in_time_and_in_revisions() -> None:
    window = HistoryWindow(ServerSettings(history_s=10, history_revisions_max=100))
    assert window.target(0, 50) == 0
    assert window.target(5, 60) == 0
    assert window.target(10, 70) == 50  # what was current ten seconds ago
    assert window.target(12, 400) == 300  # more than a hundred revisions
    assert window.target(30, 410) == 400
    window.clear()
    assert window.target(31, 420) == 320
    unbounded = HistoryWindow(ServerSettings(history_s=0, history_revisions_max=0))
    assert [unbounded.target(at, at * 1000) for at in range(0, 1000, 100)] == [0] * 10
