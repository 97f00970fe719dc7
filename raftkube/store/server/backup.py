"""Backups: a member's state as a stream, and such a stream as the directory of a new cluster's member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import trio

from raftkube.clock import Clock
from raftkube.disk import Disk
from raftkube.errors import BackupDamaged, DeadlineExpired, Indefinite, InvariantViolation
from raftkube.net import Address
from raftkube.net.outbox import Outbox
from raftkube.rng import Rng
from raftkube.store.core import StateMachine
from raftkube.store.core.backup import BackupEncoder, BackupHeader, BackupReader, Read
from raftkube.store.raft.admission import initial_identity
from raftkube.store.raft.identity import IdentityFile, cluster_id_of
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.private import NO_OP
from raftkube.store.raft.snapshot_files import SnapshotId, SnapshotWriter
from raftkube.store.server.service import Service
from raftkube.version import VERSION
from raftkube.wire import rpc

_UNSENT_BYTES_MAX: Final = 1024 * 1024
_STALLED_S: Final = 60.0  # a reader that takes nothing for so long holds back what compaction would free

# Where a new cluster's log begins: every member is made with the same state at the same entry.
_BASE: Final = SnapshotId(last_index=2, term=1)


async def send_backup(
    service: Service, outbox: Outbox, request_id: int, *, linearizable: bool, deadline: float
) -> int:
    """Send the state of one moment as PARTs of request `request_id`; how many bytes it has.

    `linearizable`: it holds every write acknowledged before the call; else it is what this member has
    applied, which needs no leader. Raises NoLeader, Stopped; DeadlineExpired, Indefinite: a part of it was
    sent. Cancelled: the client gets no more of it.
    """
    if linearizable:
        await service.consensus.read_index()
    else:
        service.suspension.check_reads()
    core, encoder, identity = service.machine.core, BackupEncoder(), service.identity
    header = BackupHeader(identity.cluster_id, identity.name, VERSION, core.revision, core.compact_revision)
    chunks = service.machine.snapshot()  # the state as of now: no await since the header was made
    sent = await _send(outbox, request_id, encoder.begin(header))
    for chunk in chunks:
        if service.clock.monotonic() >= deadline:
            raise DeadlineExpired("the deadline passed before the whole snapshot was sent")
        sent += await _send(outbox, request_id, encoder.chunk(chunk))
    return sent + await _send(outbox, request_id, encoder.end())


async def _send(outbox: Outbox, request_id: int, data: bytes) -> int:
    outbox.post(rpc.part(request_id, data))
    with trio.move_on_after(_STALLED_S) as stalled:
        await outbox.wait_room(_UNSENT_BYTES_MAX)
        await trio.lowlevel.checkpoint()
    if stalled.cancelled_caught:
        raise Indefinite(f"the snapshot was given up: nothing of it was taken for {_STALLED_S:g} s")
    return len(data)


def read_state(read: Read, bump_revision: int) -> tuple[StateMachine, str]:
    """The state of a backup as that of another cluster, its revision raised by `bump_revision`; and the
    backup's hash. Raises BackupDamaged."""
    reader = BackupReader(read)
    try:
        machine = StateMachine.restore(reader.chunks())
    except InvariantViolation as error:
        raise BackupDamaged(str(error)) from error
    return machine.rebased(machine.revision + bump_revision), reader.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMember:
    """The member `name` of a new cluster, made from the backup with that hash."""

    name: str
    members: Mapping[str, Address]
    clients: Mapping[str, Address]
    token: str
    sha256: str


def write_member(disk: Disk, machine: StateMachine, new: NewMember, *, clock: Clock, rng: Rng) -> str:
    """Make an empty `disk` the directory of a new cluster's member, with that state; the cluster's id.

    All members of one restore get the same id, those of another backup a different one: they would refuse
    each other. The journal comes last, for a snapshot without one is no member (a crash in the middle).
    Raises ConfigError: the name is none of the members; OSError, DiskFailed.
    """
    identity = initial_identity(new.name, new.token, new.members, new.clients, rng)
    identity = replace(identity, cluster_id=cluster_id_of(f"{new.token}\n{new.sha256}", new.members))
    writer = SnapshotWriter(disk, _BASE, identity.configuration.encode())
    for chunk in machine.snapshot():
        writer.write(chunk)
    writer.finish()
    IdentityFile.create(disk, identity)
    journal = SegmentedJournal(disk, rng, clock)
    journal.setCurrentTerm(_BASE.term, None)
    journal.reset(_BASE.last_index, _BASE.term, NO_OP)
    journal.setRaftCommitIndex(_BASE.last_index)
    journal.sync()
    journal.close()
    return identity.cluster_id
