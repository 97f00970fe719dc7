"""Who may speak to which port: every port against every certificate, refused before a byte is decoded."""

from __future__ import annotations

import datetime
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from monitored import Certificates, Members, get, members

from raftkube.clock import SystemClock
from raftkube.net import Address, TlsFiles
from raftkube.net.http_parser import RequestParser
from raftkube.net.tcp import TcpNetwork
from raftkube.store.raft import messages as msg
from raftkube.wire import rpc
from raftkube.wire.frames import FrameReader, frame

ALLOWED = {
    "client": {"raftkube:store-client", "raftkube:store-admin", "raftkube:store-peer"},
    "peer": {"raftkube:store-peer"},
    "metrics": {"raftkube:store-metrics", "raftkube:store-admin", "raftkube:store-peer"},
}
ROLES = (
    "raftkube:store-client",
    "raftkube:store-admin",
    "raftkube:store-peer",
    "raftkube:store-metrics",
    "system:masters",
)
PORTS = tuple(ALLOWED)


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Whatever reached a frame reader or a request parser of this process."""
    seen: list[bytes] = []

    def spy(cls: type) -> None:
        original = cls.feed  # type: ignore[attr-defined]

        def feed(self: Any, data: bytes) -> Any:
            seen.append(data)
            return original(self, data)

        monkeypatch.setattr(cls, "feed", feed)

    spy(FrameReader)
    spy(RequestParser)
    return seen


def opening(running: Members, port: str) -> bytes:
    """What a client of that port says first."""
    if port == "client":
        return rpc.client_hello("test")
    if port == "peer":
        return frame(msg.hello(running.cluster_id, "store-1", msg.Hello("store-2", "0123456789abcdef", 2, 1)))
    return b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


async def say(address: Address, tls: TlsFiles | None, data: bytes) -> bytes:
    """Send `data`; what comes back in one read. b"" where the other end closed, or never let us in."""
    with trio.fail_after(20):
        try:
            connection = await TcpNetwork().connect(address, tls)
        except (OSError, trio.BrokenResourceError):
            return b""
        try:
            await connection.send_all(data)
            return await connection.receive_some()
        except trio.BrokenResourceError:
            return b""
        finally:
            connection.abort()


@asynccontextmanager
async def secure_member(directory: Path) -> AsyncIterator[tuple[Members, Certificates]]:
    """store-1, of a cluster whose store-2 does not run."""
    certificates = Certificates(directory)
    async with members(directory, absent=("store-2",), tls=certificates.member) as running:
        yield running, certificates


def address_of(running: Members, port: str) -> Address:
    bound = running.bound["store-1"]
    return {"client": bound.client, "peer": bound.peer, "metrics": bound.metrics[0]}[port]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("port", PORTS)
async def test_each_port_takes_its_own_roles_only(
    port: str, role: str, tmp_path: Path, fed: list[bytes]
) -> None:
    async with secure_member(tmp_path) as (running, certificates):
        tls = certificates.client(role, name="store-2")
        fed.clear()
        answer = await say(address_of(running, port), tls, opening(running, port))
    if role in ALLOWED[port]:
        assert opening(running, port) in fed
        assert answer
        assert b"takes certificates with" not in answer
    else:
        assert fed == []
        if port == "client":
            assert b"permission_denied" in answer
        elif port == "metrics":
            assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        else:
            assert answer == b""


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("credential", ["none", "expired", "not-yet", "other-ca", "self-signed", "plain"])
async def test_no_port_takes_a_certificate_that_proves_nothing(
    port: str, credential: str, tmp_path: Path, fed: list[bytes]
) -> None:
    async with secure_member(tmp_path) as (running, certificates):
        tls = _worthless(credential, certificates, tmp_path)
        fed.clear()
        assert await say(address_of(running, port), tls, opening(running, port)) == b""
        assert fed == []


def _worthless(credential: str, certificates: Certificates, directory: Path) -> TlsFiles | None:
    """Each carries the organization that every port takes."""
    role = "raftkube:store-peer"
    if credential == "plain":
        return None
    if credential == "none":
        return TlsFiles(certificates.ca)
    if credential == "expired":
        return certificates.client(role, name="store-2", days=0, clock=_Shifted(days=-2))
    if credential == "not-yet":
        return certificates.client(role, name="store-2", clock=_Shifted(days=2))
    other = Certificates(directory, "store-ca" if credential == "self-signed" else "other-ca")
    made = other.client(role, name="store-2")
    if credential == "self-signed":  # a CA of the same name is not the same CA
        certificates.authority.write(directory, "store-ca")
    return TlsFiles(certificates.ca, made.cert_file, made.key_file)


class _Shifted(SystemClock):
    def __init__(self, *, days: int) -> None:
        self._shift_s = datetime.timedelta(days=days).total_seconds()

    def wall(self) -> float:
        return super().wall() + self._shift_s


@pytest.mark.parametrize("name", ["store-1", "store-9", "store-2#0123abcd"])
async def test_a_peer_must_carry_the_name_that_it_claims(name: str, tmp_path: Path, fed: list[bytes]) -> None:
    """Which member it is stands in its hello, so that this is looked at, and nothing behind it."""
    async with secure_member(tmp_path) as (running, certificates):
        tls = certificates.client("raftkube:store-peer", name=name)
        fed.clear()
        entries = frame([msg.APPEND, 9, 9, 9, 9, []])
        assert await say(running.bound["store-1"].peer, tls, opening(running, "peer")) == b""
        assert await say(running.bound["store-1"].peer, tls, entries) == b""
        assert fed == [opening(running, "peer"), entries]


@pytest.mark.parametrize("port", ["client", "peer"])
@pytest.mark.parametrize("length", [0xFFFFFFFF, 65 * 1024 * 1024, 0])
async def test_a_frame_beyond_the_limit_is_refused_by_its_length(
    port: str, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four bytes are enough; nothing is kept for the rest, and others are served on."""
    async with secure_member(tmp_path) as (running, certificates):
        tls = certificates.client("raftkube:store-peer", name="store-2")
        address = address_of(running, port)
        with trio.fail_after(20):
            connection = await TcpNetwork().connect(address, tls)
            await connection.send_all(opening(running, port))
            assert await connection.receive_some()
            await connection.send_all(struct.pack(">I", length) + b"x" * 100)
            try:
                while await connection.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
            connection.abort()
        assert await say(address, tls, opening(running, port))


async def test_a_request_with_an_endless_head_is_refused(tmp_path: Path) -> None:
    async with secure_member(tmp_path) as (running, certificates):
        tls = certificates.client("raftkube:store-metrics")
        head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_000_000
        answer = await say(running.metrics(), tls, head)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert (await get(running.metrics(), "/livez", tls))[0] == 200


def test_a_reader_keeps_nothing_of_a_frame_that_is_too_long() -> None:
    reader = FrameReader(100)
    data: Iterator[bytes] = reader.feed(struct.pack(">I", 101) + b"z" * 50)
    with pytest.raises(Exception, match=r"frame length 101 is not in 1\.\.100"):
        next(data)


async def test_http_may_be_read_by_whoever_reaches_it(tmp_path: Path) -> None:
    """As etcd's flag of this name: an open metrics port is the operator's decision."""
    async with members(tmp_path) as running:
        status, text = await get(running.metrics(), "/metrics")
        assert status == 200
        assert "etcd_server_has_leader" in text
