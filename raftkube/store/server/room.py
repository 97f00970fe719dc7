"""Room on a member's disk: the warning before it runs out, the wait for it afterwards, and what a member says
of a disk that failed."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from raftkube.clock import Clock
from raftkube.disk import Disk
from raftkube.errors import DiskFailed, DiskFull

log = structlog.get_logger(__name__)

LOW_BYTES: Final = 256 * 1024 * 1024
_WATCH_S: Final = 5.0
_POLL_S: Final = 1.0
_POLL_MAX_S: Final = 30.0
_STABLE_S: Final = 60.0  # alive for so long: the next wait starts short again
_MIB: Final = 1024 * 1024


class Room:
    """Of one disk, through all lives of its member."""

    def __init__(self, disk: Disk, clock: Clock, *, segment_bytes: int) -> None:
        self._disk, self._clock = disk, clock
        self._needed_bytes = 2 * segment_bytes  # a journal that went on with less would soon stop again
        self._delay_s = _POLL_S
        self._waited_at = float("-inf")
        self.warning: str | None = None

    async def watch(self) -> None:
        """Keep `warning` true, until cancelled."""
        while True:
            self._look()
            await trio.sleep(_WATCH_S)

    def _look(self) -> None:
        try:
            free = self._disk.free_bytes()
        except OSError:
            return  # a disk that fails says so at the next write
        low = max(LOW_BYTES, self._needed_bytes)
        before, self.warning = self.warning, None
        if free < low:
            self.warning = (
                f"low on disk space: {_mib(free)} free in {self._disk.path}, below {_mib(low)}; free some, or"
                " this member stops taking part when there is none"
            )
            if before is None:
                log.warning("disk_space_low", free_bytes=free, directory=self._disk.path)

    def sentence(self, error: DiskFailed) -> str:
        """What failed, what the member does about it, and what is to be done."""
        if isinstance(error, DiskFull):
            return (
                f"failed: {error}; this member takes part in nothing until {_mib(self._needed_bytes)} are"
                f" free in {self._disk.path}. Free some: it goes on by itself"
            )
        return (
            f"failed: {error}; this member takes part in nothing and writes nothing any more. Replace the"
            f" disk of {self._disk.path}, then restart this member; if it refuses its data: raftkube repair"
        )

    async def wait(self) -> None:
        """Until there is room for another life. What only a new life can tell (a quota is not seen from
        here) is tried again after a wait that doubles."""
        now = self._clock.monotonic()
        if now - self._waited_at > _STABLE_S:
            self._delay_s = _POLL_S
        await trio.sleep(self._delay_s)
        self._delay_s = min(2 * self._delay_s, _POLL_MAX_S)
        while self._free_bytes() < self._needed_bytes:  # noqa: ASYNC110 no event tells of it
            await trio.sleep(_POLL_S)
        self._waited_at = self._clock.monotonic()

    def _free_bytes(self) -> int:
        try:
            return self._disk.free_bytes()
        except OSError:
            return 0


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f} MiB"
