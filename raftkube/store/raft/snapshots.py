"""Snapshots: made here so that the log can be cut, sent to members whose log ends before ours begins,
received from a leader.

A snapshot is durable before the log that it replaces is cut, and an installed one is durable before the
log is reset to it; a crash between the two is repaired at the next start. A log that holds the snapshot's
last entry is kept, with all that follows (Raft §7). Parts travel one at a time, each acknowledged with the
offset that is wanted next, so that either end may start over and a new connection goes on where the old
one broke. `installs` has the receiving half.

While a snapshot is on its way, and until the follower has caught up behind it, the log is not cut above it
(within `install_log_bytes_max`): else a follower that takes long to install would need the next snapshot
by then, and so for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from raftkube.disk import Disk, disk_failure
from raftkube.errors import DiskFull, InvariantViolation
from raftkube.store.raft import messages as msg
from raftkube.store.raft.counters import DURATION_BUCKETS_S, Histogram
from raftkube.store.raft.guard import Guard
from raftkube.store.raft.installs import Installs
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.machine import Machine
from raftkube.store.raft.membership import Configuration
from raftkube.store.raft.messages import Message
from raftkube.store.raft.outlet import Outlet
from raftkube.store.raft.private import LEADER, NO_OP, Core
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.raft.snapshot_files import (
    SnapshotId,
    SnapshotReader,
    SnapshotWriter,
    remove_unfinished,
    snapshot_names,
)

log = structlog.get_logger(__name__)

_RETRY_FULL_S: Final = 5.0
_REPEAT_S: Final = 1.0  # a part that got lost with its connection is sent again
_SILENT_S: Final = 15.0  # a follower that says nothing for so long, or moves on nowhere, is not waited for


@dataclass(slots=True)
class _Sending:
    """A snapshot on its way to a follower; `offset` is that of the part under way."""

    reader: SnapshotReader
    term: int
    offset: int
    sent_at: float
    heard_at: float


@dataclass(slots=True)
class _Need:
    """A follower that was sent the snapshot up to `index` and has to go on from there; `match` is what it
    was known to hold at `moved_at`."""

    index: int
    match: int
    moved_at: float


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
        self._made_bytes = 0  # of the last snapshot made here
        self._kept_bytes = 0  # of the log that it left
        self._sending: dict[str, _Sending] = {}
        self._wanted: set[str] = set()
        self._needed: dict[str, _Need] = {}
        self._stepped_at = 0.0
        self.installs = Installs(disk, machine)
        self._sender: tuple[str, int] | None = None  # of the snapshot that is being built, and its term
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
            raise disk_failure(error, "snapshots cannot be read") from error
        if self._journal.first_index > 1:
            raise InvariantViolation(
                f"the log begins at entry {self._journal.first_index} and no snapshot holds what came before"
            )
        return 1

    def _restore(self, name: str) -> int:
        """Load the snapshot `name` into the state machine and make the log follow on from it."""
        reader = SnapshotReader(self._disk, name)
        building = self._machine.restoring(reader.chunks())
        try:
            while True:
                next(building)
        except StopIteration as done:
            done.value()
        except OSError:
            raise
        except Exception as error:
            raise InvariantViolation(f"{name} cannot be restored: {error}") from error
        finally:
            reader.close()
        return self._follow_on(name, reader.snapshot)

    def _follow_on(self, name: str, snapshot: SnapshotId) -> int:
        """`name` is durable: make the log go on from it, keeping what it holds behind it."""
        index, term = snapshot
        reader = SnapshotReader(self._disk, name)
        reader.close()
        packed = reader.configuration
        configuration = None if packed is None else Configuration.decode(packed)
        if self._journal.first_index > index:
            raise InvariantViolation(f"{name} ends before the log begins ({self._journal.first_index})")
        self._journal.configurations.restored(index, configuration)  # first: nobody is a stranger meanwhile
        if self._journal.term_at(index) != term:
            self._journal.reset(index, term, NO_OP)
        self._journal.setRaftCommitIndex(index)
        self._name, self.index = name, index
        return index

    # Making.

    async def run(self, failed: Callable[[Exception], None], wake: Callable[[], None]) -> None:
        """Make a snapshot whenever the log has grown enough, build those that arrive; errors go to
        `failed`. `wake` is called when `step` has something to do."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._make_when_due, failed)
            nursery.start_soon(self.installs.run, wake, failed)

    async def _make_when_due(self, failed: Callable[[Exception], None]) -> None:
        while True:
            await self._due.wait()
            try:
                await self._make()
            except OSError as error:
                failure = disk_failure(error, "snapshot")
                if not isinstance(failure, DiskFull):
                    failed(failure)
                    return
                log.warning("snapshot_dropped", error=str(failure), retry_in_s=_RETRY_FULL_S)
                await trio.sleep(_RETRY_FULL_S)  # the log holds everything; it only grows meanwhile
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
        configuration = self._journal.configurations.at(index).encode()
        writer = SnapshotWriter(self._disk, SnapshotId(index, term), configuration)
        size = 0
        try:
            for chunk in self._machine.snapshot():
                writer.write(chunk)
                size += len(chunk)
                await trio.lowlevel.checkpoint()
            if index <= self.index:
                writer.abandon()  # a newer one was installed meanwhile
                return
            self._name, self.index = writer.finish(), index
        except OSError as error:
            if isinstance(disk_failure(error, "snapshot"), DiskFull):
                writer.abandon()  # its room is needed
            raise
        self.save_s.observe(trio.current_time() - started)
        self._journal.compact(self._first_kept(index))
        self._made_bytes, self._kept_bytes = size, self._journal.live_bytes
        self._journal.configurations.forget(index)
        log.info("snapshot_made", index=index, log_first=self._journal.first_index)

    def _grown_enough(self) -> bool:
        """By twice the size of the last snapshot: making them writes at most half of what the log does."""
        grown = self._journal.live_bytes - min(self._kept_bytes, self._journal.live_bytes)
        return grown > max(self._settings.snapshot_log_bytes, 2 * self._made_bytes)

    def _first_kept(self, index: int) -> int:
        """Keep `retain_entries` behind the snapshot, but no more than half the bytes that trigger one; and
        what a follower that installs an older one will need."""
        first = max(self._journal.first_index, index - self._settings.retain_entries)
        kept = self._back_to(first, index, self._settings.snapshot_log_bytes // 2)
        needed = min(self._installing_from(index), default=kept)
        if needed < kept:
            kept = self._back_to(
                max(self._journal.first_index, needed), kept, self._settings.install_log_bytes_max
            )
        return kept

    def _back_to(self, first: int, last: int, bytes_max: int) -> int:
        """The first entry, from `first` on, of those before `last` that fit into `bytes_max`."""
        while last > first and bytes_max > 0:
            last -= 1
            bytes_max -= len(self._journal[last - self._journal.first_index][0])
        return last

    def _installing_from(self, index: int) -> list[int]:
        """The entries that followers with a snapshot on its way still need. One that holds `index` needs
        nothing more; one that moves on nowhere begins anew some day."""
        now = self._stepped_at
        for name, need in list(self._needed.items()):
            match = self.core.match_index(name)
            if match > need.match or name in self._sending:
                need.match, need.moved_at = match, now
            elif now - need.moved_at > _SILENT_S:
                del self._needed[name]
            if match >= index and name not in self._sending:
                self._needed.pop(name, None)
        return [max(need.index, need.match) for need in self._needed.values()]

    def step(self, now: float) -> None:
        """After each tick: begin what is due, repeat what got lost, end what has no purpose any more."""
        self._stepped_at = now
        entries = self.core.applied_index - max(self.index, self._journal.first_index)
        settings = self._settings
        self._install_ready()
        if entries > 1 and (entries > settings.snapshot_log_entries or self._grown_enough()):
            self._due.set()
        if self.core.role != LEADER:
            for name in list(self._sending):
                self._stop_sending(name)
            self._wanted.clear()
            self._needed.clear()
            self.guard.progress.stop_installing()
            return
        wanted, self._wanted = self._wanted, set()
        for name in sorted(wanted):
            self._start_sending(name, now)
        for name, sending in list(self._sending.items()):
            if sending.term != self.core.term or now - sending.heard_at > _SILENT_S:
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

    def connection_up(self, name: str) -> None:
        """What was under way to `name` may be lost: send it again at once."""
        if name in self._sending:
            self._sending[name].sent_at = float("-inf")

    def _start_sending(self, name: str, now: float) -> None:
        if self._name is None:
            raise InvariantViolation(f"{name} needs a snapshot and there is none although the log was cut")
        reader = SnapshotReader(self._disk, self._name)
        sending = self._sending[name] = _Sending(reader, self.core.term, 0, now, now)
        self._needed[name] = _Need(reader.snapshot.last_index, self.core.match_index(name), now)
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
        sending.heard_at = now
        if done:
            self._stop_sending(name)
        elif offset == sending.reader.size:  # it has everything and builds its state: ask now and then
            sending.offset, sending.sent_at = offset, now
        elif offset < sending.reader.size:
            sending.offset = offset
            self._send_part(name, sending, now)

    # Receiving.

    def receive(self, name: str, message: Message, now: float) -> None:
        """A snapshot message from `name`. Raises DiskFailed."""
        if message[0] == msg.SNAPSHOT_OK:
            self._on_progress(name, message, now)
            return
        _, term, index, snapshot_term, offset, data, last = message
        if not self.guard.follow(name, term) or term > self.core.term:
            return  # of an old leader, or of a new one whose first append is still to come
        if index <= self.core.applied_index:
            self._answer(name, term, index, 0, done=True)
            return
        self._sender = name, term
        try:
            wanted = self.installs.take_part(SnapshotId(index, snapshot_term), offset, data, last=last)
        except OSError as error:
            failure = disk_failure(error, "snapshot")
            if not isinstance(failure, DiskFull):
                raise failure from error
            log.warning("snapshot_dropped", error=str(failure))
            self.installs.drop_incoming()  # the leader sends it again
            wanted = None
        if wanted is not None:
            self._answer(name, term, index, wanted, done=False)

    def _answer(self, name: str, term: int, index: int, offset: int, *, done: bool) -> None:
        self._outlet.send(name, [msg.SNAPSHOT_OK, term, index, offset, done])

    def _install_ready(self) -> None:
        """Put a state that is built in place: the file, then the log, are durable before it counts."""
        ready = self.installs.take_ready()
        if ready is None:
            return
        incoming, swap = ready
        index, _ = incoming.snapshot
        try:
            if index <= self.core.applied_index:
                incoming.drop()
            else:
                self._follow_on(incoming.publish(), incoming.snapshot)
                self._journal.sync()
                swap()
                self.core.jump_to(index)
                log.info("snapshot_installed", index=index)
        except OSError as error:
            raise disk_failure(error, "snapshot") from error
        if self._sender is not None:
            self._answer(*self._sender, index, 0, done=True)
