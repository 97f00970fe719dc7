"""The balancer: spreads, fails over, and leaves out a backend that does not answer."""

from __future__ import annotations

import trio

from raftkube.cluster.balancer import Balancer
from raftkube.net import Address, Connection
from raftkube.net.tcp import TcpNetwork, serve

LOOPBACK = Address("127.0.0.1", 0)


async def _backend(nursery: trio.Nursery, name: bytes) -> tuple[Address, trio.CancelScope]:
    async def handler(connection: Connection) -> None:
        while await connection.receive_some():
            await connection.send_all(name)

    scope = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[Address]) -> None:
        with scope:
            await serve(await TcpNetwork().listen(LOOPBACK, None), handler, task_status=task_status)

    return await nursery.start(run), scope


async def _ask(address: Address) -> bytes:
    connection = await TcpNetwork().connect(address, None)
    try:
        await connection.send_all(b"?")
        return await connection.receive_some()
    except trio.BrokenResourceError:
        return b""
    finally:
        connection.abort()


async def test_connections_are_spread_and_survive_a_backend() -> None:
    async with trio.open_nursery() as nursery:
        one, stop_one = await _backend(nursery, b"one")
        two, _ = await _backend(nursery, b"two")
        front = await nursery.start(Balancer(TcpNetwork(), [one, two]).run, LOOPBACK)
        held = await TcpNetwork().connect(front, None)
        await held.send_all(b"?")
        first = await held.receive_some()
        assert {first, await _ask(front)} == {b"one", b"two"}
        stop_one.cancel()
        for _ in range(5):
            assert await _ask(front) == b"two"
        held.abort()
        nursery.cancel_scope.cancel()


async def test_no_backend_closes_the_connection() -> None:
    async with trio.open_nursery() as nursery:
        gone, stop = await _backend(nursery, b"x")
        stop.cancel()
        front = await nursery.start(Balancer(TcpNetwork(), [gone]).run, LOOPBACK)
        assert await _ask(front) == b""
        nursery.cancel_scope.cancel()
