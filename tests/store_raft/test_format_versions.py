"""Whatever is written or said by another version is refused with a sentence that says so (the state in
a snapshot: test_refuses_another_format)."""

from __future__ import annotations

import struct
import zlib
from random import Random

import msgpack
import pytest

from chaos.sim.disk import SimDisk
from raftkube.errors import InvariantViolation
from raftkube.store.raft import journal_format, snapshot_files
from raftkube.store.raft import messages as msg
from raftkube.store.raft.identity import Identity
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.membership import Configuration
from raftkube.wire import rpc
from raftkube.wire.frames import FrameError, pack

SNAPSHOT = snapshot_files.SnapshotId(7, 1)


class StillClock:
    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0


def journal_of(disk: SimDisk) -> SegmentedJournal:
    return SegmentedJournal(disk, Random(1), StillClock(), segment_bytes=4096)


def test_a_journal_of_another_version() -> None:
    disk = SimDisk(Random(1))
    journal = journal_of(disk)
    journal.add(b"command", 2, 1)
    journal.sync()
    journal.close()
    (name,) = (name for name in disk.names() if name.startswith("journal-"))

    def newer(data: bytearray) -> None:
        size = struct.calcsize("<8sQQIQQ")
        data[6] = 2
        data[size : size + 4] = struct.pack("<I", zlib.crc32(bytes(data[:size])))

    assert journal_format.version_of(disk.read_all(name)[: journal_format.SECTOR]) == 1
    disk.damage(name, newer)
    with pytest.raises(InvariantViolation, match=f"{name} is of version 2, this program reads 1: start the"):
        journal_of(disk)


def test_a_snapshot_file_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimDisk(Random(1))
    with monkeypatch.context() as newer:
        newer.setattr(snapshot_files, "_VERSION", 3)
        name = snapshot_files.SnapshotWriter(disk, SNAPSHOT).finish()
    with pytest.raises(InvariantViolation, match=f"{name} is of version 3, this program reads 2"):
        snapshot_files.SnapshotReader(disk, name)


def test_an_identity_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = Identity("c", "t", "n1", "aa", Configuration.of_names(["n1"]))
    with monkeypatch.context() as newer:
        newer.setattr("raftkube.store.raft.identity._FORMAT", 2)
        data = identity.pack()
    with pytest.raises(InvariantViolation, match="written by another version of this program"):
        Identity.unpack(data)


def test_a_configuration_of_another_version() -> None:
    newer = msgpack.packb([3, [], [], [], [], 7, "more"])
    with pytest.raises(InvariantViolation, match="of format 3; this program reads 2: upgrade it"):
        Configuration.decode(newer)
    plain = Configuration.of_names(["n1"])
    assert msgpack.unpackb(plain.encode())[0] == 1, "what an older program reads is written as it wrote it"


def test_a_peer_of_another_version() -> None:
    hello = msg.hello("c", "n1", msg.Hello("n2", "aa", 2, 1))
    for other in (msg.VERSION - 1, msg.VERSION + 1, "3", None):
        with pytest.raises(FrameError, match=f"the peer speaks version .*{other}.*, this member speaks 3"):
            msg.decode(pack([msg.HELLO, msg.PROTOCOL, other, "fields", "that", "are", "others"]))
    later = [*hello, "a field that came later"]
    assert msg.check_hello(msg.decode(pack(later)), cluster_id="c", receiver="n1") == ("n2", "aa", 2, 1)


def test_a_client_and_a_member_of_another_version() -> None:
    sentence = "protocol version 2; this end speaks version 1"
    with pytest.raises(FrameError, match=sentence):
        rpc.parse_client_hello([rpc.MAGIC, 2, "whoever"])
    with pytest.raises(FrameError, match=sentence):
        rpc.parse_member_hello([rpc.MAGIC, 2, "fields that are others"])
