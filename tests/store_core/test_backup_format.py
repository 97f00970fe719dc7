"""Backups: what comes back is what was saved; every flipped byte, every cut and every addition is told."""

from __future__ import annotations

import io

import pytest
from test_store_snapshot import large, small

from raftkube.errors import BackupDamaged, Compacted, InvariantViolation
from raftkube.store.core import StateMachine
from raftkube.store.core.backup import BackupEncoder, BackupHeader, BackupReader, check_backup
from raftkube.types import Revision
from raftkube.wire import store as w


def backup_of(machine: StateMachine) -> bytes:
    encoder = BackupEncoder()
    header = BackupHeader("c0ffee", "store-1", "1.0", machine.revision, machine.compact_revision)
    return b"".join([encoder.begin(header), *map(encoder.chunk, machine.snapshot()), encoder.end()])


def test_a_backup_holds_the_state_and_says_what_it_is() -> None:
    machine = large()
    data = backup_of(machine)
    status = check_backup(io.BytesIO(data).read)
    assert status[1:] == (
        machine.revision, machine.compact_revision, len(machine.read(w.Range(b"\x00", b"\x00")).kvs),  # type: ignore[union-attr]
        len(data), "c0ffee", "store-1", "1.0",
    )  # fmt: skip
    reader = BackupReader(io.BytesIO(data).read)
    assert StateMachine.restore(reader.chunks()).state_hash() == machine.state_hash()
    assert reader.sha256 == status.sha256
    assert len(status.sha256) == 64


def test_every_flipped_byte_every_cut_and_an_addition_are_told() -> None:
    data = backup_of(small())
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x41
        for wrong in (bytes(damaged), data[:at]):
            with pytest.raises(BackupDamaged):
                check_backup(io.BytesIO(wrong).read)
    with pytest.raises(BackupDamaged, match="after its end"):
        check_backup(io.BytesIO(data + b"x").read)
    with pytest.raises(BackupDamaged, match="not a backup"):
        check_backup(io.BytesIO(b"#!/bin/sh\n" * 10).read)


def test_a_state_for_another_cluster_keeps_keys_and_leases_and_no_past() -> None:
    machine = small()
    before = machine.read(w.Range(b"\x00", b"\x00"))
    leases = list(machine.leases())
    moved = StateMachine.restore(machine.rebased(1_000).snapshot())
    assert (moved.revision, moved.compact_revision) == (1_000, 1_000)
    after = moved.read(w.Range(b"\x00", b"\x00"))
    assert after.kvs == before.kvs  # type: ignore[union-attr]
    assert list(moved.leases()) == leases
    with pytest.raises(Compacted):
        moved.events_between(Revision(5), b"\x00", b"\x00", 10)
    with pytest.raises(Compacted):
        moved.read(w.Range(b"/a", revision=999))
    assert moved.events_between(Revision(1_000), b"\x00", b"\x00", 10).revisions == ()
    assert moved.apply(w.Put(b"/new", b"1")).revision == 1_001  # type: ignore[union-attr]
    with pytest.raises(InvariantViolation):
        machine.rebased(3)
