"""Certificates are replaced while servers and clients run: the next handshake uses the new ones."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
import trio

from raftkube.clock import SystemClock
from raftkube.cluster.certificates import Authority
from raftkube.errors import ConfigError
from raftkube.net import Address, Connection, TlsFiles
from raftkube.net.tcp import TcpNetwork, serve
from raftkube.net.tls import TlsContexts

LOOPBACK = Address("127.0.0.1", 0)


@dataclass
class Ends:
    """A server that says who calls, and its client, each with files that can be replaced."""

    directory: Path
    authority: Authority
    network: TcpNetwork
    address: Address
    server: TlsFiles
    client: TlsFiles

    def issue(self, which: str, name: str) -> None:
        """Replace a certificate and its key by those of `name`, as a tool does: a rename each."""
        issued = self.authority.issue(name, hosts=("127.0.0.1",), server=True)
        issued.write(self.directory, which)

    async def meet(self) -> tuple[str, str]:
        """Who the client sees, and whom the server saw, on a new connection."""
        connection = await self.network.connect(self.address, self.client)
        try:
            seen = (await connection.receive_some()).decode()
            assert connection.peer is not None
            return connection.peer.common_name, seen
        finally:
            connection.abort()


async def _say_who(connection: Connection) -> None:
    assert connection.peer is not None
    await connection.send_all(connection.peer.common_name.encode())
    await connection.receive_some()


@asynccontextmanager
async def ends(directory: Path) -> AsyncIterator[Ends]:
    authority = Authority.create("ca", SystemClock())
    ca = authority.write(directory, "ca")
    server, client = (
        TlsFiles(
            ca, *authority.issue(f"{which}-1", hosts=("127.0.0.1",), server=True).write(directory, which)
        )
        for which in ("server", "client")
    )
    network = TcpNetwork()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve, await network.listen(LOOPBACK, server), _say_who)
        yield Ends(directory, authority, network, address, server, client)
        nursery.cancel_scope.cancel()


async def test_both_sides_use_the_newest_certificate(tmp_path: Path) -> None:
    async with ends(tmp_path) as both:
        assert await both.meet() == ("server-1", "client-1")
        both.issue("server", "server-2")
        assert await both.meet() == ("server-2", "client-1")
        both.issue("client", "client-2")
        assert await both.meet() == ("server-2", "client-2")


async def test_a_connection_outlives_the_rotation_that_it_did_not_see(tmp_path: Path) -> None:
    async with ends(tmp_path) as both:
        before = await both.network.connect(both.address, both.client)
        assert await before.receive_some() == b"client-1"
        both.issue("server", "server-2")
        assert await both.meet() == ("server-2", "client-1")
        await before.send_all(b"still here")
        before.abort()


async def test_a_certificate_without_its_key_waits_for_it(tmp_path: Path) -> None:
    """The moment between two renames: the old pair serves, and one warning is logged, however many call."""
    async with ends(tmp_path) as both:
        new = both.authority.issue("server-2", hosts=("127.0.0.1",), server=True)
        with structlog.testing.capture_logs() as logs:
            (tmp_path / "server.crt").write_bytes(new.certificate)
            for _ in range(3):
                assert await both.meet() == ("server-1", "client-1")
            (tmp_path / "server.key").write_bytes(new.key)
            assert await both.meet() == ("server-2", "client-1")
        assert [line["event"] for line in logs if line["event"].startswith("tls_files")] == [
            "tls_files_unusable",
            "tls_files_reloaded",
        ]


@pytest.mark.parametrize("which", ["ca.crt", "server.crt", "server.key"])
@pytest.mark.parametrize("damage", ["half", "empty", "garbage", "gone"])
async def test_torn_files_end_no_server(tmp_path: Path, which: str, damage: str) -> None:
    async with ends(tmp_path) as both:
        assert await both.meet() == ("server-1", "client-1")
        path = tmp_path / which
        whole = path.read_bytes()
        torn = {"half": whole[: len(whole) // 2], "empty": b"", "garbage": os.urandom(300)}
        path.unlink() if damage == "gone" else path.write_bytes(torn[damage])
        assert await both.meet() == ("server-1", "client-1")
        path.write_bytes(whole)
        assert await both.meet() == ("server-1", "client-1")


async def test_a_new_authority_is_trusted_from_the_next_handshake_on(tmp_path: Path) -> None:
    async with ends(tmp_path) as both:
        other = Authority.create("other-ca", SystemClock())
        other.issue("client-2").write(tmp_path, "stranger")
        stranger = TlsFiles(
            both.client.ca_file, str(tmp_path / "stranger.crt"), str(tmp_path / "stranger.key")
        )
        both.client, old = stranger, both.client
        with pytest.raises((OSError, trio.BrokenResourceError)):
            await both.meet()
        bundle = both.authority.certificate_pem + other.certificate_pem
        (tmp_path / "ca.crt").write_bytes(bundle)
        assert await both.meet() == ("server-1", "client-2")
        both.client = old
        assert await both.meet() == ("server-1", "client-1")
        (tmp_path / "ca.crt").write_bytes(both.authority.certificate_pem)
        both.client = stranger
        with pytest.raises((OSError, trio.BrokenResourceError)):
            await both.meet()


def test_a_replaced_file_of_equal_size_and_time_is_seen(tmp_path: Path) -> None:
    """A tool that keeps modification times (cp -p, a container's volume) replaces the file all the same."""
    authority = Authority.create("ca", SystemClock())
    ca = authority.write(tmp_path, "ca")
    files = TlsFiles(ca, *authority.issue("server", server=True).write(tmp_path, "server"))
    contexts = TlsContexts()
    first = contexts.get(files, server=True)
    assert contexts.get(files, server=True) is first
    for path in (files.cert_file, files.key_file):
        assert path is not None
        seen = os.stat(path)
        copy = Path(path).with_suffix(".copy")
        copy.write_bytes(Path(path).read_bytes())
        os.utime(copy, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        copy.replace(path)
    assert contexts.get(files, server=True) is not first


def test_files_that_never_were_usable_are_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TLS files .*none\.crt.* cannot be used"):
        TlsContexts().get(TlsFiles(None, str(tmp_path / "none.crt"), str(tmp_path / "none.key")), server=True)
