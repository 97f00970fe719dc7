"""Real sockets on loopback: plain and mutual TLS, sends that never wait, hostile ends."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trio.testing

from raftkube.clock import SystemClock
from raftkube.cluster.certificates import Authority
from raftkube.errors import ConfigError
from raftkube.net import Address, Connection, TlsFiles, parse_address
from raftkube.net.connection import SocketConnection
from raftkube.net.tcp import TcpNetwork, serve

LOOPBACK = Address("127.0.0.1", 0)


@pytest.fixture
def tls_pair(tmp_path: Path) -> tuple[TlsFiles, TlsFiles]:
    authority = Authority.create("test-ca", SystemClock())
    ca = authority.write(tmp_path, "ca")
    server = authority.issue("server", hosts=("127.0.0.1", "localhost"), server=True).write(
        tmp_path, "server"
    )
    client = authority.issue("alice", organizations=("dev", "ops")).write(tmp_path, "client")
    return TlsFiles(ca, *server), TlsFiles(ca, *client)


async def _echo(connection: Connection) -> None:
    while data := await connection.receive_some():
        await connection.send_all(data)


async def _round_trip(server: TlsFiles | None, client: TlsFiles | None, size: int) -> None:
    network = TcpNetwork()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve, await network.listen(LOOPBACK, server), _echo)
        connection = await network.connect(address, client)
        payload = bytes(range(256)) * (size // 256)
        received = bytearray()

        async def read() -> None:
            while len(received) < len(payload):
                received.extend(await connection.receive_some())

        async with trio.open_nursery() as both:
            both.start_soon(read)
            await connection.send_all(payload)
        assert received == payload
        await connection.aclose()
        nursery.cancel_scope.cancel()


async def test_plain_round_trip() -> None:
    await _round_trip(None, None, 4_000_000)


async def test_tls_round_trip(tls_pair: tuple[TlsFiles, TlsFiles]) -> None:
    await _round_trip(*tls_pair, 4_000_000)


async def test_the_server_sees_who_calls(tls_pair: tuple[TlsFiles, TlsFiles]) -> None:
    network, seen = TcpNetwork(), []

    async def handler(connection: Connection) -> None:
        seen.append(connection.peer)
        await connection.send_all(b"x")

    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve, await network.listen(LOOPBACK, tls_pair[0]), handler)
        connection = await network.connect(address, tls_pair[1])
        assert await connection.receive_some() == b"x"
        assert connection.peer is not None
        assert connection.peer.common_name == "server"
        connection.abort()
        nursery.cancel_scope.cancel()
    assert seen[0].common_name == "alice"
    assert seen[0].organizations == ("dev", "ops")


async def test_a_client_without_certificate_is_refused(tls_pair: tuple[TlsFiles, TlsFiles]) -> None:
    network = TcpNetwork()
    reached = []

    async def handler(connection: Connection) -> None:
        reached.append(connection.peer)

    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve, await network.listen(LOOPBACK, tls_pair[0]), handler)
        with pytest.raises((OSError, trio.BrokenResourceError)):  # TLS 1.3 tells the client on first read
            connection = await network.connect(address, TlsFiles(tls_pair[1].ca_file))
            if await connection.receive_some() == b"":
                raise ConnectionResetError
        nursery.cancel_scope.cancel()
    assert reached == []


async def test_garbage_and_silence_do_not_end_the_server(tls_pair: tuple[TlsFiles, TlsFiles]) -> None:
    network = TcpNetwork()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve, await network.listen(LOOPBACK, tls_pair[0]), _echo)
        garbage = await network.connect(address, None)
        await garbage.send_all(b"GET / HTTP/1.1\r\n\r\n" * 10)
        silent = await network.connect(address, None)
        good = await network.connect(address, tls_pair[1])
        await good.send_all(b"still here")
        assert await good.receive_some() == b"still here"
        for connection in (garbage, silent, good):
            connection.abort()
        nursery.cancel_scope.cancel()


class _Rounds(trio.abc.Instrument):
    """Counts how often the event loop looked who is ready."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_others_are_served_between_the_steps_of_handshakes(
    tls_pair: tuple[TlsFiles, TlsFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many clients that come at once are ready at once; each step of theirs is a millisecond of computing."""
    rounds = _Rounds()
    steps: dict[int, int] = {}
    original = SocketConnection._step

    def step(self: SocketConnection, tls: ssl.SSLObject) -> None:
        if tls.server_side:
            steps[rounds.count] = steps.get(rounds.count, 0) + 1
        original(self, tls)

    monkeypatch.setattr(SocketConnection, "_step", step)
    trio.lowlevel.add_instrument(rounds)
    network = TcpNetwork()
    listener = await network.listen(LOOPBACK, tls_pair[0])
    crowd = [await network.connect(listener.address, None) for _ in range(40)]
    for connection in crowd:
        await connection.send_all(_client_hello(tls_pair[1]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, listener, _echo)
        with trio.fail_after(20):
            for connection in crowd:
                assert await connection.receive_some()  # the server's part
        nursery.cancel_scope.cancel()
    for connection in crowd:
        connection.abort()
    trio.lowlevel.remove_instrument(rounds)
    assert sum(steps.values()) >= 40
    assert max(steps.values()) <= 2  # it is 32, as many as are accepted in a row, if nothing limits it


def _client_hello(files: TlsFiles) -> bytes:
    sent = ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=files.ca_file)
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


async def test_a_client_that_stops_in_its_handshake_is_let_go(
    tls_pair: tuple[TlsFiles, TlsFiles], autojump_clock: trio.testing.MockClock
) -> None:
    network = TcpNetwork()
    listener = await network.listen(LOOPBACK, tls_pair[0])
    silent = await network.connect(listener.address, None)
    accepted = await listener.accept()
    with pytest.raises(trio.TooSlowError):
        await accepted.handshake()
    accepted.abort()
    silent.abort()
    await listener.aclose()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_send_nowait_stops_at_a_reader_that_does_not_read(
    tls: bool, tls_pair: tuple[TlsFiles, TlsFiles]
) -> None:
    network, taken = TcpNetwork(), 0
    block = b"z" * 65_536
    accepted: list[Connection] = []
    done = trio.Event()

    async def hold(connection: Connection) -> None:
        accepted.append(connection)
        await done.wait()

    async with trio.open_nursery() as nursery:
        listener = await network.listen(LOOPBACK, tls_pair[0] if tls else None)
        address = await nursery.start(serve, listener, hold)
        connection = await network.connect(address, tls_pair[1] if tls else None)
        while connection.send_nowait(block):
            taken += len(block)
            assert taken < 100_000_000
        while not accepted:
            await trio.testing.wait_all_tasks_blocked(0.01)
        received = 0
        async with trio.open_nursery() as both:
            both.start_soon(connection.drain)
            while received < taken:
                received += len(await accepted[0].receive_some())
        assert received == taken
        assert connection.send_nowait(b"more")
        done.set()
        connection.abort()
        nursery.cancel_scope.cancel()


async def test_a_taken_port_is_one_clear_sentence() -> None:
    network = TcpNetwork()
    listener = await network.listen(LOOPBACK, None)
    with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
        await network.listen(listener.address, None)
    await listener.aclose()


NO_HOSTS = ["a..b", "a" * 64, "a\0b", "\u00fc", "a b", "-a", ".", "a/b", "\ud800", "a." * 130]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":1",
        "h:99999",
        "h:x",
        "h:\u00b2",
        "h:" + "1" * 5000,
        *(f"{h}:1" for h in NO_HOSTS),
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="write host:port"):
        parse_address(text)


def test_addresses() -> None:
    assert parse_address("https://127.0.0.1:2379/") == Address("127.0.0.1", 2379)
    assert str(parse_address("[::1]:80")) == "[::1]:80"
    for name in ("store-1", "store_1.example.org", "a" * 63, "localhost", "10.0.0.1", "fe80::1%eth0"):
        assert parse_address(f"[{name}]:1").host == name


@pytest.mark.parametrize("host", NO_HOSTS)
async def test_a_host_that_is_none_cannot_be_reached_like_any_other(host: str) -> None:
    with pytest.raises(OSError):
        await TcpNetwork().connect(Address(host, 1), None)


async def test_files_in_the_middle_of_a_rotation_end_no_server(tls_pair: tuple[TlsFiles, TlsFiles]) -> None:
    """Until the new files can be read the old ones serve."""
    network = TcpNetwork()
    key_file = Path(str(tls_pair[0].key_file))
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve, await network.listen(LOOPBACK, tls_pair[0]), _echo)
        key = key_file.read_bytes()
        for damage in (lambda: key_file.write_bytes(b"half a key"), key_file.unlink):
            damage()
            connection = await network.connect(address, tls_pair[1])
            await connection.send_all(b"x")
            assert await connection.receive_some() == b"x"
            connection.abort()
        key_file.write_bytes(key)
        await (await network.connect(address, tls_pair[1])).aclose()
        nursery.cancel_scope.cancel()
