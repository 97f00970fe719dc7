"""Mutants of the journal, of its recovery, and of snapshots as files."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from chaos.mutants.mutant import Mutant
from raftkube.store.raft import journal_format, journal_recovery, snapshot_files
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.private import NO_OP, Core
from raftkube.store.raft.snapshots import Snapshots

Function = Callable[..., Any]


def _no_sync(original: Function) -> Function:
    return lambda self, file: None


def _snapshot_unsynced(original: Function) -> Function:
    def publish(disk: Any, file: Any, temporary: str, snapshot: Any) -> str:
        file.sync = lambda: None
        return str(original(disk, file, temporary, snapshot))

    return publish


def _forget_the_last(original: Function) -> Function:
    def adopt(self: SegmentedJournal, recovered: Any) -> None:
        if len(recovered.entries) > 2:
            del recovered.entries[-1:]
        original(self, recovered)

    return adopt


def _full_is_fine(original: Function) -> Function:
    def write_batch(self: SegmentedJournal) -> None:
        chain = self._chain
        try:
            original(self)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._chain = chain
            self._pending, self._pending_high, self._dirty = [], 0, False

    return write_batch


class _Anything:
    """Equal to every checksum."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def _any_checksum(original: Function) -> Function:
    def unpack(data: bytes, offset: int = 0) -> Any:
        header = original(data, offset)
        return header and header._replace(body_crc=_Anything())

    return unpack


def _cut_at_damage(original: Function) -> Function:
    def replay(state: Any, name: str, file: Any, *, last: bool) -> bool:
        if state.torn:
            return False
        before = state.position
        try:
            return bool(original(state, name, file, last=last))
        except Exception:  # noqa: BLE001 whatever it is, that is the end of the log
            state.position, state.torn = before, (name, before)
            return False

    return replay


def _never_damaged(original: Function) -> Function:
    def check(state: Any, names: list[str]) -> None:
        if state.entries:
            state.first = state.entries[0][1]
            state.commit = min(state.commit, state.entries[-1][1])

    return check


def _drop_early(original: Function) -> Function:
    def drop_segments(self: SegmentedJournal) -> None:
        if len(self._segments) > 2:
            self._disk.remove(self._segments.pop(0).name)
            self._disk.sync_directory()
        original(self)

    return drop_segments


def _forget_what_follows(original: Function) -> Function:
    def follow_on(self: Snapshots, name: str, snapshot: Any) -> Any:
        index = original(self, name, snapshot)
        if self._journal.last_index > index:
            self._journal.reset(index, snapshot.term, NO_OP)
        return index

    return follow_on


def _jump_short(original: Function) -> Function:
    def jump_to(self: Core, index: int) -> None:
        original(self, index)
        hooks: Any = self._hooks
        if hooks.journal.first_index < index:
            original(self, index - 1)

    return jump_to


def _old_state_stays(original: Function) -> Function:
    def install_ready(self: Snapshots) -> None:
        take = self.installs.take_ready

        def take_without_state() -> Any:
            ready = take()
            return ready and (ready[0], lambda: None)

        self.installs.take_ready = take_without_state  # type: ignore[method-assign]
        try:
            original(self)
        finally:
            self.installs.take_ready = take  # type: ignore[method-assign]

    return install_ready


_SMALL: Final = {"raft": {"segment_bytes": 4096, "snapshot_log_entries": 25, "retain_entries": 3}}
_LONG: Final = {"raft": {"segment_bytes": 4096, "snapshot_log_entries": 400}}
_DOWN: Final = "kill,stop,power,isolate"

MUTANTS: Final = (
    Mutant("no-sync", "the journal is never synced", ((SegmentedJournal, "_sync_file", _no_sync),), "power"),
    Mutant("snapshot-unsynced", "snapshots are renamed before a sync",
           ((snapshot_files, "_publish", _snapshot_unsynced),), "power", settings=_SMALL),
    Mutant("forget-the-last", "recovery drops the last entry",
           ((SegmentedJournal, "_adopt", _forget_the_last),), "kill,power"),
    Mutant("full-acknowledged", "what had no room on the disk is acknowledged all the same",
           ((SegmentedJournal, "_write_batch", _full_is_fine),), "disk-full,kill,power"),
    Mutant("any-checksum", "recovery compares no checksum of a batch",
           ((journal_format, "unpack_batch_header", _any_checksum),), "bit-rot,kill", settings=_LONG),
    Mutant("cut-at-damage", "damage anywhere in the journal is taken for the end of the log",
           ((journal_recovery, "_replay_batch", _cut_at_damage),
            (journal_recovery, "_check", _never_damaged)),
           "bit-rot,kill,power-loss-majority", settings=_LONG,
           doubt="the others mend a log that was cut short; to lose a write, a majority must lack it"),
    Mutant("segments-dropped-early", "segments go while the log still needs them",
           ((SegmentedJournal, "_drop_segments", _drop_early),), _DOWN, settings=_LONG),
    Mutant("install-loses-what-follows", "a snapshot that the log goes on behind cuts it off there",
           ((Snapshots, "_follow_on", _forget_what_follows),), _DOWN, settings=_SMALL),
    Mutant("install-keeps-old-state", "an installed snapshot's state is not put in place",
           ((Snapshots, "_install_ready", _old_state_stays),), "partition,kill,rot", settings=_SMALL),
    Mutant("apply-once-more", "after a snapshot the last entry that it holds is applied again",
           ((Core, "jump_to", _jump_short),), _DOWN, settings=_SMALL),
)  # fmt: skip
