"""The leader's clock of leases: who has to renew by when, and the proposal when nobody did.

Expiry is a proposed command that names the renewal it was decided on; apply ignores it if the lease was
renewed since. A new leader gives every lease its whole TTL again, and a leader that was stopped for a
while does not count that time: leases are extended in doubt, never cut short.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog
import trio

from raftkube.clock import Clock
from raftkube.errors import StoreError
from raftkube.store.core import LeaseView
from raftkube.store.server.settings import ServerSettings
from raftkube.wire.store import LeaseExpire, LeaseResult

log = structlog.get_logger(__name__)

_LOOK_S: Final = 0.25
_RETRY_S: Final = 0.5
_EXPIRIES_AT_ONCE: Final = 256


class LeaseClock:
    """`run` is its task. `barrier` must return only once this member is confirmed as leader and has
    applied all that was committed before; `propose` carries out a LeaseExpire."""

    def __init__(
        self,
        settings: ServerSettings,
        clock: Clock,
        *,
        barrier: Callable[[], Awaitable[object]],
        propose: Callable[[LeaseExpire], Awaitable[object]],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._barrier = barrier
        self._propose = propose
        self._leading = False
        self._due: dict[int, tuple[float, int]] = {}  # lease: deadline, renewal
        self._heap: list[tuple[float, int]] = []  # deadlines, outdated ones among them
        self._wake = trio.Event()

    def lead(self, leases: Iterable[LeaseView]) -> None:
        """This member leads: every lease starts its TTL anew."""
        now = self._clock.monotonic()
        self._leading = True
        self._due = {view.lease: (now + view.ttl_s, view.renewal) for view in leases}
        self._rebuild()

    def follow(self) -> None:
        """This member does not lead: it expires nothing."""
        self._leading = False
        self._due.clear()
        self._rebuild()

    def observe(self, result: LeaseResult) -> None:
        """A lease was granted, renewed or ended; called as it is applied."""
        if not self._leading:
            return
        if result.ttl_s <= 0:
            self._due.pop(result.lease, None)
        elif self._due.get(result.lease, (0.0, -1))[1] < result.renewal:
            self._set(result.lease, self._clock.monotonic() + result.ttl_s, result.renewal)

    def remaining_s(self, lease: int) -> float:
        """Seconds until `lease` may be expired, at least 0; -1 if it is not known here."""
        due = self._due.get(lease)
        return -1.0 if due is None else max(0.0, due[0] - self._clock.monotonic())

    async def run(self) -> None:
        """Propose what is due, until cancelled."""
        while True:
            now = self._clock.monotonic()
            # Short sleeps while there are leases: how late one ends tells how long the process was stopped.
            planned = min(self._heap[0][0], now + _LOOK_S) if self._heap else float("inf")
            wake = self._wake
            with trio.move_on_after(max(0.0, planned - now)):
                await wake.wait()
            if wake.is_set():
                self._wake = trio.Event()
            late_s = self._clock.monotonic() - planned
            if late_s > self._settings.pause_s:
                self._extend(late_s)
            await self._expire_due()

    def _set(self, lease: int, deadline: float, renewal: int) -> None:
        self._due[lease] = (deadline, renewal)
        heapq.heappush(self._heap, (deadline, lease))
        if len(self._heap) > 2 * len(self._due) + 64:
            self._rebuild()
        elif self._heap[0] == (deadline, lease):
            self._wake.set()

    def _rebuild(self) -> None:
        self._heap = [(deadline, lease) for lease, (deadline, _) in self._due.items()]
        heapq.heapify(self._heap)
        self._wake.set()

    def _extend(self, seconds: float) -> None:
        log.warning("lease_clock_was_stopped", extended_s=round(seconds, 3))
        self._due = {lease: (deadline + seconds, renewal) for lease, (deadline, renewal) in self._due.items()}
        self._rebuild()

    def _take_due(self) -> list[int]:
        """The leases whose deadline has passed; outdated heap entries are dropped on the way."""
        now = self._clock.monotonic()
        due: list[int] = []
        while self._heap and self._heap[0][0] <= now and len(due) < _EXPIRIES_AT_ONCE:
            deadline, lease = heapq.heappop(self._heap)
            if lease in self._due and self._due[lease][0] == deadline:
                due.append(lease)
        return due

    async def _expire_due(self) -> None:
        suspects = self._take_due()
        if not suspects:
            return
        try:
            await self._barrier()  # drains what was received; a deposed leader stops here
        except StoreError as error:
            log.info("lease_expiry_deferred", error=error.message)
            self._defer(suspects)
            return
        async with trio.open_nursery() as nursery:
            now = self._clock.monotonic()
            for lease in suspects:
                deadline, renewal = self._due.get(lease, (float("inf"), 0))
                if deadline <= now:
                    nursery.start_soon(self._expire, lease, renewal)

    async def _expire(self, lease: int, renewal: int) -> None:
        try:
            await self._propose(LeaseExpire(lease, renewal))
        except StoreError as error:
            log.info("lease_expiry_deferred", lease=lease, error=error.message)
            self._defer([lease])

    def _defer(self, leases: list[int]) -> None:
        """Ask again soon; TTLs are not touched, so a lease that was renewed meanwhile stays out."""
        now = self._clock.monotonic()
        for lease in leases:
            if lease in self._due and self._due[lease][0] <= now:
                self._set(lease, now + _RETRY_S, self._due[lease][1])
