"""The queue of keys between an informer and its reconcilers.

A key stands in it once, however often it is added; a key that is added while a worker has it comes back
when the worker is done, so no change is lost and no key is worked on twice at once. Failures back off by
key. Source: k8s.io/client-go/util/workqueue.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final, Generic, TypeVar

import trio

from raftkube.clock import Clock

Key = TypeVar("Key")

BACKOFF_BASE_S: Final = 0.005  # client-go's DefaultControllerRateLimiter
BACKOFF_MAX_S: Final = 60.0


class QueueStopped(Exception):
    """`get` after `stop`: the worker ends."""


class WorkQueue(Generic[Key]):
    """Any task may add; any number of workers get."""

    def __init__(
        self, clock: Clock, *, backoff_base_s: float = BACKOFF_BASE_S, backoff_max_s: float = BACKOFF_MAX_S
    ) -> None:
        self._clock = clock
        self._base_s = backoff_base_s
        self._max_s = backoff_max_s
        self._ready: deque[Key] = deque()
        self._dirty: set[Key] = set()  # to be worked on: in `_ready`, or once it is done
        self._processing: set[Key] = set()
        self._later: list[tuple[float, int, Key]] = []  # heap of (due, order of adding, key)
        self._due: dict[Key, float] = {}  # the earliest entry of each key in `_later`
        self._added = 0
        self._failures: dict[Key, int] = {}
        self._waiting = trio.lowlevel.ParkingLot()
        self._stopped = False

    def __len__(self) -> int:
        """Keys that are ready now."""
        self._move_due()
        return len(self._ready)

    def add(self, key: Key) -> None:
        """Have `key` worked on (again)."""
        if self._stopped or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._ready.append(key)
            self._waiting.unpark()

    def add_after(self, key: Key, delay_s: float) -> None:
        """`add` it in so many seconds; the earliest of several counts."""
        if self._stopped:
            return
        due = self._clock.monotonic() + delay_s
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        self._added += 1
        heapq.heappush(self._later, (due, self._added, key))
        self._waiting.unpark()  # a worker may have to wait less long now

    def add_rate_limited(self, key: Key) -> None:
        """`add` it after its backoff, which doubles with each call until `forget`."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(self._base_s * 2.0 ** min(failures, 60), self._max_s))

    def forget(self, key: Key) -> None:
        """It went well: its backoff starts anew."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """Calls of `add_rate_limited` since the last `forget`."""
        return self._failures.get(key, 0)

    async def get(self) -> Key:
        """The next key; the caller says `done` when it has finished with it, whatever came of it.

        Raises QueueStopped. Cancelled: nothing was taken.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._stopped:
                raise QueueStopped
            self._move_due()
            if self._ready:
                break
            with trio.move_on_after(self._next_due_s()):
                await self._waiting.park()
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        if self._ready or self._later:
            self._waiting.unpark()  # whoever was woken for this key passes the rest on
        return key

    def done(self, key: Key) -> None:
        """`key` is no longer worked on; if it was added meanwhile, it is ready again."""
        self._processing.discard(key)
        if key in self._dirty and not self._stopped:
            self._ready.append(key)
            self._waiting.unpark()

    def stop(self) -> None:
        """No more keys: every `get`, now and later, raises QueueStopped."""
        self._stopped = True
        self._waiting.unpark_all()

    def _next_due_s(self) -> float:
        return max(0.0, self._later[0][0] - self._clock.monotonic()) if self._later else float("inf")

    def _move_due(self) -> None:
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
