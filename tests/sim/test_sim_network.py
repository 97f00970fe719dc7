"""The fake network keeps the contract of real sockets, and cuts, delays and resets on request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import pytest
import trio

from chaos.sim.clock import SimClock, run_simulation
from chaos.sim.network import SimConnection, SimNetwork
from raftkube.errors import ConfigError
from raftkube.net import Address, Connection, Network, PeerIdentity
from raftkube.net.tcp import TcpNetwork


@pytest.fixture(params=["real", "fake"])
def network(request: pytest.FixtureRequest) -> Network:
    return TcpNetwork() if request.param == "real" else SimNetwork(Random(1)).host("a")


async def _pair(network: Network) -> tuple[Connection, Connection]:
    listener = await network.listen(Address("127.0.0.1", 0), None)
    client = await network.connect(listener.address, None)
    server = await listener.accept()
    await server.handshake()
    await listener.aclose()
    return client, server


async def _read(connection: Connection, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await connection.receive_some()
        assert part, "the stream ended early"
        data += part
    return data


async def test_bytes_arrive_in_order_both_ways(network: Network) -> None:
    client, server = await _pair(network)
    payload = bytes(range(256)) * 4096
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, payload)
            assert await _read(server, len(payload)) == payload
        await server.send_all(b"answer")
        assert await _read(client, 6) == b"answer"


async def test_a_send_that_does_not_wait_takes_all_or_nothing(network: Network) -> None:
    client, server = await _pair(network)
    taken = 0
    while client.send_nowait(bytes(65536)):
        taken += 65536
        assert taken < 100_000_000
    assert client.unsent
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.drain)
            await _read(server, taken)
    assert client.send_nowait(b"more")
    assert await _read(server, 4) == b"more"


async def test_the_end_of_a_stream(network: Network) -> None:
    client, server = await _pair(network)
    await client.send_all(b"last")
    await client.aclose()
    assert await _read(server, 4) == b"last"
    assert await server.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await client.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        client.send_nowait(b"x")
    client.abort()  # twice is fine


async def test_a_peer_that_has_closed_is_known_before_all_is_read(network: Network) -> None:
    client, server = await _pair(network)
    await client.send_all(b"last")
    assert not server.peer_closed
    await client.aclose()
    with trio.fail_after(20):
        while not server.peer_closed:  # noqa: ASYNC110  its bytes are on their way
            await trio.sleep(0.01)
    assert await _read(server, 4) == b"last"
    assert client.peer_closed  # closed here: nothing more comes
    await server.aclose()


async def test_nobody_listens(network: Network) -> None:
    listener = await network.listen(Address("127.0.0.1", 0), None)
    await listener.aclose()
    with pytest.raises(OSError):
        await network.connect(listener.address, None)


async def test_a_taken_address(network: Network) -> None:
    listener = await network.listen(Address("127.0.0.1", 0), None)
    with pytest.raises(ConfigError, match="cannot listen on"):
        await network.listen(listener.address, None)
    await listener.aclose()


async def test_a_closed_listener_ends_its_accept(network: Network) -> None:
    listener = await network.listen(Address("127.0.0.1", 0), None)
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()


Scenario = Callable[[SimNetwork, SimConnection, SimConnection], Awaitable[None]]


def _simulate(scenario: Scenario) -> None:
    async def main() -> None:
        network = SimNetwork(Random(1), delay_s=(0.01, 0.02))
        listener = await network.host("b", PeerIdentity("bob")).listen(Address("b", 1), None)
        client = await network.host("a", PeerIdentity("alice")).connect(Address("b", 1), None)
        server = await listener.accept()
        assert (client.peer, server.peer) == (PeerIdentity("bob"), PeerIdentity("alice"))
        await scenario(network, client, server)

    run_simulation(1, main)


def test_messages_take_their_time() -> None:
    async def scenario(network: SimNetwork, client: SimConnection, server: SimConnection) -> None:
        began = trio.current_time()
        await client.send_all(b"x")
        assert await server.receive_some() == b"x"
        assert 0.01 <= trio.current_time() - began <= 0.021

    _simulate(scenario)


def test_a_cut_holds_bytes_back_in_its_direction_alone() -> None:
    async def scenario(network: SimNetwork, client: SimConnection, server: SimConnection) -> None:
        network.cut("a", "b")
        await client.send_all(b"held")
        await server.send_all(b"passes")
        assert await client.receive_some() == b"passes"
        with trio.move_on_after(5) as scope:
            await server.receive_some()
        assert scope.cancelled_caught
        network.heal("a", "b")
        assert await server.receive_some() == b"held"

    _simulate(scenario)


def test_a_cut_keeps_new_connections_out() -> None:
    async def scenario(network: SimNetwork, client: SimConnection, server: SimConnection) -> None:
        network.partition({"a"}, {"b"})
        with pytest.raises(TimeoutError):
            await network.host("a").connect(Address("b", 1), None)
        network.heal()
        await network.host("a").connect(Address("b", 1), None)

    _simulate(scenario)


def test_a_reset_breaks_both_ends() -> None:
    async def scenario(network: SimNetwork, client: SimConnection, server: SimConnection) -> None:
        network.reset("b", "a")
        for end in (client, server):
            with pytest.raises(trio.BrokenResourceError):
                await end.receive_some()

    _simulate(scenario)


def test_a_host_that_dies_behind_a_cut_is_not_noticed() -> None:
    async def scenario(network: SimNetwork, client: SimConnection, server: SimConnection) -> None:
        network.cut("b", "a")
        network.crash("b")
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()
        with trio.move_on_after(5) as scope:
            await client.receive_some()
        assert scope.cancelled_caught
        network.heal()
        with pytest.raises(OSError):
            await network.host("a").connect(Address("b", 1), None)

    _simulate(scenario)


def test_clocks_differ_between_members_and_jump_with_trio() -> None:
    async def main() -> None:
        near, far = SimClock(), SimClock(monotonic_offset_s=500.0, wall_offset_s=-3.0)
        assert far.monotonic() - near.monotonic() == 500.0
        began = near.monotonic()
        await trio.sleep(3600)
        assert near.monotonic() - began == pytest.approx(3600)
        assert near.wall() - far.wall() == pytest.approx(3.0)

    run_simulation(1, main)
