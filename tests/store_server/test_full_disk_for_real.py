"""A member over real sockets and a real directory whose disk has no room, or breaks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
from three_members import NAMES, ThreeMembers, free_addresses, leader_of

from raftkube.disk import SystemDisk, SystemFile
from raftkube.errors import RaftkubeError, Stopped
from raftkube.net import Address
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient
from raftkube.wire.store import Range


class Faults:
    """What goes wrong on every disk made by `disk`."""

    def __init__(self) -> None:
        self.full: set[str] = set()
        self.broken: set[str] = set()

    def disk(self, path: str) -> SystemDisk:
        return FaultyDisk(path, self)


class FaultyDisk(SystemDisk):
    """A real directory; as on a full one, nothing can be made or grown, and room is said to be none."""

    def __init__(self, path: str, faults: Faults) -> None:
        super().__init__(path)
        self._faults = faults

    def check(self) -> None:
        if self.path in self._faults.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.path in self._faults.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def open(self, name: str, *, create: bool = False) -> SystemFile:
        if create:
            self.check()
        file = super().open(name, create=create)
        return FaultyFile(os.dup(file._fd), self, file)

    def free_bytes(self) -> int:
        return 0 if self.path in self._faults.full else super().free_bytes()


class FaultyFile(SystemFile):
    def __init__(self, fd: int, disk: FaultyDisk, original: SystemFile) -> None:
        super().__init__(fd)
        original.close()
        self._disk = disk

    def write_at(self, offset: int, data: bytes) -> None:
        self._disk.check()
        super().write_at(offset, data)

    def preallocate(self, size: int) -> None:
        self._disk.check()
        super().preallocate(size)


def open_files() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)}


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


async def complaint(client: StoreClient, members: ThreeMembers, name: str) -> str:
    """What the member says of its failed disk, as soon as it says anything."""
    while True:
        errors = (await client.status(members.clients[name]))["errors"]
        for error in errors:
            if error.startswith("failed: "):
                return str(error)
        await trio.sleep(0.02)


async def equal_hashes(client: StoreClient, members: ThreeMembers) -> None:
    while True:
        try:
            hashes = {(await client.hash(members.clients[name]))["hash"] for name in NAMES}
        except RaftkubeError:
            hashes = set()
        if len(hashes) == 1:
            return
        await trio.sleep(0.05)


async def run_with_faults(tmp_path: Path, faults: Faults) -> None:
    network = TcpNetwork()
    async with trio.open_nursery() as nursery:
        members = ThreeMembers(tmp_path, network, nursery, await free_addresses(network, 6))
        members.make_disk = faults.disk
        await members.start_all()
        with trio.fail_after(60):
            async with StoreClient.open(network, list(members.clients.values()), name="test") as client:
                await fail_the_leader(tmp_path, faults, members, client)
        nursery.cancel_scope.cancel()


async def complains(client: StoreClient, address: Address) -> bool:
    """Whether a member says that something is wrong, or says nothing: it begins anew when there is room."""
    try:
        return bool((await client.status(address))["errors"])
    except RaftkubeError:
        return True


async def fail_the_leader(tmp_path: Path, faults: Faults, members: ThreeMembers, client: StoreClient) -> None:
    await client.put(b"before", b"1")
    victim = await leader_of(client)
    path = str(tmp_path / victim)
    files = sorted(file for file in open_files() if file.startswith(path))
    address = members.clients[victim]
    watched = client.watch(b"", b"\0")
    async with watched as watch:
        faults.full.add(path)
        written = 0
        while not await complains(client, address):
            try:
                await client.put(b"k%03d" % written, b"x")
            except RaftkubeError:  # it was on its way to the leader
                continue
            written += 1
        said = await complaint(client, members, victim)
        assert "No space left on device" in said
        assert "Free some" in said
        assert path in said
        # It answers what needs no consensus, and nothing else.
        assert (await client.range(Range(b"before"), serializable=True, member=address)).kvs
        assert (await client.hash(address))["revision"] >= 2
        with pytest.raises(Stopped):
            await client.range(Range(b"before"), member=address)
        await client.put(b"others", b"go on")  # and the watch goes on elsewhere
        async for batch in watch:
            if any(event.kv.key == b"others" for event in batch.events):
                break
    faults.full.discard(path)
    while await complains(client, address):
        await trio.sleep(0.05)
    await equal_hashes(client, members)
    assert (await client.range(Range(b"others"), serializable=True, member=address)).kvs
    after = sorted(file for file in open_files() if file.startswith(path))
    assert [file.rpartition("/")[2][:8] for file in after] == [file.rpartition("/")[2][:8] for file in files]
    await break_it(faults, members, client)


async def break_it(faults: Faults, members: ThreeMembers, client: StoreClient) -> None:
    """Input/output errors: it never writes again, stays up, and is whole after an operator's restart."""
    victim = await leader_of(client)
    path = faults_path = str(members._directory / victim)
    faults.broken.add(path)
    while not await complains(client, members.clients[victim]):
        try:
            await client.put(b"more", b"x")
        except RaftkubeError:
            continue
    assert "Replace the disk" in await complaint(client, members, victim)
    faults.broken.discard(faults_path)
    for _ in range(50):  # the disk works again, but the member believes it no more
        await client.put(b"still", b"failed")
    assert "Replace the disk" in await complaint(client, members, victim)
    await members.kill(victim)
    await members.start(victim)
    await equal_hashes(client, members)


async def test_a_full_and_then_a_broken_disk(tmp_path: Path) -> None:
    await run_with_faults(tmp_path, Faults())
