"""Snapshots that leaders send: gathered in a file, built into a state beside the present one, put in place
in one step.

While the new state is built, slice by slice, the member goes on with the old one: it answers heartbeats,
votes, takes appends and applies them, and serves reads. None of that can go wrong. A snapshot holds
committed entries alone, so whoever leads by the time it is ready, its log agrees with it; and an append
that was acknowledged meanwhile is either at or below the snapshot, which holds it, or above, and then the
log holds the snapshot's entry too and is kept (Raft §7). If the log has overtaken the snapshot when that is
ready, the snapshot is dropped.

The file takes its name, the log is reset to it, and only then the states change places: a crash before is
a snapshot that never was, a crash in between is repaired at the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from raftkube.disk import Disk, disk_failure
from raftkube.errors import InvariantViolation
from raftkube.store.raft.machine import Machine
from raftkube.store.raft.snapshot_files import IncomingSnapshot, SnapshotId

log = structlog.get_logger(__name__)

_NOTHING: Final = -1


@dataclass(slots=True)
class _Build:
    """A snapshot that has arrived; `swap` puts its state in place, once it is built."""

    file: IncomingSnapshot
    slices: Generator[None, None, Callable[[], None]]
    swap: Callable[[], None] | None = None


class Installs:
    """What one member has received of snapshots. Its methods raise DiskFailed."""

    def __init__(self, disk: Disk, machine: Machine) -> None:
        self._disk, self._machine = disk, machine
        self._incoming: IncomingSnapshot | None = None
        self._build: _Build | None = None
        self._arrived = trio.Event()

    @property
    def building_index(self) -> int:
        """The last entry of the snapshot that is being built or waits to be put in place; -1: none."""
        return _NOTHING if self._build is None else self._build.file.snapshot.last_index

    def take_part(self, snapshot: SnapshotId, offset: int, data: bytes, *, last: bool) -> int | None:
        """Keep a part if it is the next one; the offset that is wanted next, None to say nothing now."""
        if snapshot.last_index <= self.building_index:
            assert self._build is not None
            return self._build.file.size if snapshot == self._build.file.snapshot else None
        incoming = self._incoming
        if incoming is None or incoming.snapshot != snapshot:
            if incoming is not None:
                incoming.drop()
            incoming = self._incoming = IncomingSnapshot(self._disk, snapshot)
        if offset == incoming.size:
            incoming.write(data)
            if last:
                self._begin_build(incoming)
        return incoming.size

    def drop_incoming(self) -> None:
        """Give up what has been received of the snapshot that is arriving. Raises OSError."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.drop()

    def _begin_build(self, incoming: IncomingSnapshot) -> None:
        """One at a time: a newer one takes an older one's place."""
        self._incoming = None
        self.drop_build()
        self._build = _Build(incoming, self._machine.restoring(incoming.chunks()))
        self._arrived.set()

    def build_slice(self) -> bool:
        """Do the next slice of the build; False if there is nothing to build now.

        A snapshot that makes no state is dropped: the leader will begin anew, and this member's old state
        is as good as before.
        """
        build = self._build
        if build is None or build.swap is not None:
            return False
        try:
            return self._next_slice(build)
        except OSError as error:
            raise disk_failure(error, "snapshot") from error

    def _next_slice(self, build: _Build) -> bool:
        try:
            next(build.slices)
        except StopIteration as done:
            build.swap = done.value
            return False
        except InvariantViolation as error:
            log.error("snapshot_refused", index=build.file.snapshot.last_index, error=str(error))
            self.drop_build()
            return False
        return True

    async def run(self, ready: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Build what arrives; call `ready` when a state waits to be put in place, `failed` on an error."""
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            try:
                more = True
                while more:
                    more = self.build_slice()
                    await trio.lowlevel.checkpoint()
            except Exception as error:  # noqa: BLE001 a bug in the state machine ends the member
                failed(error)
                return
            ready()

    def take_ready(self) -> tuple[IncomingSnapshot, Callable[[], None]] | None:
        """The snapshot whose state is built, and the step that puts it in place; then it is forgotten."""
        build = self._build
        if build is None or build.swap is None:
            return None
        self._build = None
        return build.file, build.swap

    def drop_build(self) -> None:
        """Give up what is being built."""
        build, self._build = self._build, None
        if build is not None:
            build.slices.close()
            build.file.drop()
