"""Snapshots: made here so that the log can be cut, sent to members whose log ends before ours begins,
received from a leader.

A snapshot is durable before the log that it replaces is cut, and an installed one is durable before the
log is reset to it; a crash between the two is repaired at the next start. A log that holds the snapshot's
last entry is kept, with all that follows (Raft §7). Parts travel one at a time, each acknowledged with the
offset that is wanted next, so that either end may start over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from raftkube.disk import Disk
from raftkube.errors import DiskFailed, InvariantViolation
from raftkube.store.raft import messages as msg
from raftkube.store.raft.counters import DURATION_BUCKETS_S, Histogram
from raftkube.store.raft.guard import Guard
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.machine import Machine
from raftkube.store.raft.messages import Message
from raftkube.store.raft.outlet import Outlet
from raftkube.store.raft.private import LEADER, NO_OP, Core
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.raft.snapshot_files import (
    IncomingSnapshot,
    SnapshotId,
    SnapshotReader,
    SnapshotWriter,
    remove_unfinished,
    snapshot_names,
)

log = structlog.get_logger(__name__)

_REPEAT_S: Final = 1.0  # a part that got lost with its connection is sent again


@dataclass(slots=True)
class _Sending:
    """A snapshot on its way to a follower; `offset` is that of the part under way."""

    reader: SnapshotReader
    term: int
    offset: int
    sent_at: float


class Snapshots:
    """The snapshots of one member."""

    core: Core
    guard: Guard

    def __init__(
        self,
        disk: Disk,
        journal: SegmentedJournal,
        machine: Machine,
        outlet: Outlet,
        settings: RaftSettings,
    ) -> None:
        self._disk, self._journal, self._machine = disk, journal, machine
        self._outlet, self._settings = outlet, settings
        self.index = 0
        self._name: str | None = None
        self._due = trio.Event()
        self._sending: dict[str, _Sending] = {}
        self._wanted: set[str] = set()
        self._incoming: IncomingSnapshot | None = None
        self.save_s = Histogram(DURATION_BUCKETS_S)
        self.installed = 0

    def attach(self, core: Core, guard: Guard) -> None:
        """pysyncobj and the guard exist from now on."""
        self.core, self.guard = core, guard

    # Start.

    def recover(self) -> int:
        """Restore the newest snapshot, if there is one; the index that the state machine then holds.

        Raises InvariantViolation: it is damaged, or one that the log needs is missing; DiskFailed.
        """
        try:
            remove_unfinished(self._disk)
            names = snapshot_names(self._disk)
            if names:
                if not len(self._journal):
                    raise InvariantViolation(f"{names[-1]} exists; the journal, with term and vote, does not")
                return self._restore(names[-1])
        except OSError as error:
            raise DiskFailed(f"snapshots cannot be read: {error}") from error
        if self._journal.first_index > 1:
            raise InvariantViolation(
                f"the log begins at entry {self._journal.first_index} and no snapshot holds what came before"
            )
        return 1

    def _restore(self, name: str) -> int:
        """Load the snapshot `name` into the state machine and make the log follow on from it."""
        reader = SnapshotReader(self._disk, name)
        try:
            self._machine.restore(reader.chunks())
        except OSError:
            raise
        except Exception as error:
            raise InvariantViolation(f"{name} cannot be restored: {error}") from error
        finally:
            reader.close()
        index, term = reader.snapshot
        if self._journal.first_index > index:
            raise InvariantViolation(f"{name} ends before the log begins ({self._journal.first_index})")
        if self._journal.term_at(index) != term:
            self._journal.reset(index, term, NO_OP)
        self._journal.setRaftCommitIndex(index)
        self._name, self.index = name, index
        return index

    # Making.

    async def run(self, failed: Callable[[Exception], None]) -> None:
        """Make a snapshot whenever the log has grown enough; errors go to `failed`."""
        while True:
            await self._due.wait()
            try:
                await self._make()
            except OSError as error:
                failed(DiskFailed(f"snapshot: {error.strerror or error}"))
                return
            except Exception as error:  # noqa: BLE001 a bug in the state machine ends the member
                failed(error)
                return
            self._due = trio.Event()

    async def _make(self) -> None:
        """Write the state as of now, part by part; then cut the log, keeping some for slow followers."""
        index = self.core.applied_index
        term = self._journal.term_at(index)
        if term is None or index <= self.index:
            return
        started = trio.current_time()
        writer = SnapshotWriter(self._disk, SnapshotId(index, term))
        for chunk in self._machine.snapshot():
            writer.write(chunk)
            await trio.lowlevel.checkpoint()
        if index <= self.index:
            writer.abandon()  # a newer one was installed meanwhile
            return
        self._name, self.index = writer.finish(), index
        self.save_s.observe(trio.current_time() - started)
        self._journal.compact(self._first_kept(index))
        log.info("snapshot_made", index=index, log_first=self._journal.first_index)

    def _first_kept(self, index: int) -> int:
        """Keep `retain_entries` behind the snapshot, but no more than half the bytes that trigger one."""
        first = max(self._journal.first_index, index - self._settings.retain_entries)
        kept, budget = index, self._settings.snapshot_log_bytes // 2
        while kept > first and budget > 0:
            kept -= 1
            budget -= len(self._journal[kept - self._journal.first_index][0])
        return kept

    def step(self, now: float) -> None:
        """After each tick: begin what is due, repeat what got lost, end what has no purpose any more."""
        entries = self.core.applied_index - max(self.index, self._journal.first_index)
        settings = self._settings
        if entries > settings.snapshot_log_entries or (
            self._journal.live_bytes > settings.snapshot_log_bytes and entries > 1
        ):
            self._due.set()
        if self.core.role != LEADER:
            for name in list(self._sending):
                self._stop_sending(name)
            self._wanted.clear()
            self.guard.progress.stop_installing()
            return
        wanted, self._wanted = self._wanted, set()
        for name in sorted(wanted):
            self._start_sending(name, now)
        for name, sending in list(self._sending.items()):
            if sending.term != self.core.term:
                self._stop_sending(name)
            elif now - sending.sent_at >= _REPEAT_S:
                self._send_part(name, sending, now)

    def next_deadline(self) -> float:
        """When `step` has something to do although nothing happens; infinity if never."""
        return min((sending.sent_at + _REPEAT_S for sending in self._sending.values()), default=float("inf"))

    def close(self) -> None:
        """Release the files."""
        for name in list(self._sending):
            self._stop_sending(name)

    # Sending.

    def needed_by(self, name: str) -> None:
        """pysyncobj wants to send `name` entries that the log does not hold any more."""
        if name not in self._sending:
            self._wanted.add(name)
            self.guard.progress.set_installing(name, True)

    def connection_down(self, name: str) -> None:
        """Parts under way are lost; the follower's next reset begins anew."""
        if name in self._sending:
            self._stop_sending(name)

    def _start_sending(self, name: str, now: float) -> None:
        if self._name is None:
            raise InvariantViolation(f"{name} needs a snapshot and there is none although the log was cut")
        reader = SnapshotReader(self._disk, self._name)
        sending = self._sending[name] = _Sending(reader, self.core.term, 0, now)
        log.info("snapshot_sending", to=name, index=reader.snapshot.last_index, bytes=reader.size)
        self._send_part(name, sending, now)

    def _send_part(self, name: str, sending: _Sending, now: float) -> None:
        data = sending.reader.read(sending.offset, self._settings.snapshot_chunk_bytes)
        last = sending.offset + len(data) >= sending.reader.size
        index, term = sending.reader.snapshot
        sending.sent_at = now
        self._outlet.send(name, [msg.SNAPSHOT, sending.term, index, term, sending.offset, data, last])

    def _stop_sending(self, name: str) -> None:
        self._sending.pop(name).reader.close()
        self.guard.progress.set_installing(name, False)

    def _on_progress(self, name: str, message: Message, now: float) -> None:
        _, term, index, offset, done = message
        sending = self._sending.get(name)
        if sending is None or term != sending.term or index != sending.reader.snapshot.last_index:
            return
        if done:
            self._stop_sending(name)
        elif offset <= sending.reader.size:
            sending.offset = offset
            self._send_part(name, sending, now)

    # Receiving.

    def receive(self, name: str, message: Message, now: float) -> None:
        """A snapshot message from `name`. Raises InvariantViolation: what it sent makes no state."""
        if message[0] == msg.SNAPSHOT_OK:
            self._on_progress(name, message, now)
            return
        _, term, index, snapshot_term, offset, data, last = message
        if not self.guard.follow(name, term) or term > self.core.term:
            return  # of an old leader, or of a new one whose first append is still to come
        if index <= self.core.applied_index:
            self._answer(name, term, index, 0, done=True)
            return
        snapshot = SnapshotId(index, snapshot_term)
        try:
            done = self._take_part(snapshot, offset, data, last)
        except OSError as error:
            raise DiskFailed(f"snapshot: {error.strerror or error}") from error
        self._answer(name, term, index, 0 if self._incoming is None else self._incoming.size, done=done)

    def _answer(self, name: str, term: int, index: int, offset: int, *, done: bool) -> None:
        self._outlet.send(name, [msg.SNAPSHOT_OK, term, index, offset, done])

    def _take_part(self, snapshot: SnapshotId, offset: int, data: bytes, last: bool) -> bool:
        """Add a part; install after the last one. A part that is not the next one changes nothing."""
        incoming = self._incoming
        if incoming is None or incoming.snapshot != snapshot:
            if incoming is not None:
                incoming.drop()
            incoming = self._incoming = IncomingSnapshot(self._disk, snapshot)
        if offset != incoming.size:
            return False
        incoming.write(data)
        if not last:
            return False
        self._incoming = None
        self._install(incoming)
        return True

    def _install(self, incoming: IncomingSnapshot) -> None:
        """One durable step after the other: the file, then the log; the state machine in between."""
        index = self._restore(incoming.finish())
        self._journal.sync()
        self.core.jump_to(index)
        self.installed += 1
        log.info("snapshot_installed", index=index)
