"""The proxy between store members: what it holds, cuts, delays and swallows, on real sockets."""

from __future__ import annotations

import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from chaos.live.proxied import FrameBorders
from chaos.live.proxy import Proxy
from raftkube.net import Address

BOUND_S = 20
PAIR = ("store-1", "store-2")
BACK = ("store-2", "store-1")


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


class Network:
    """Two members: `dial` connects the first to the second through the proxy, and gives both ends."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.accepted: list[trio.SocketStream] = []

    async def start(self, nursery: trio.Nursery) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(self._accept, listener)
        at = Address("127.0.0.1", listener.socket.getsockname()[1])
        members = {"store-1": Address("127.0.0.1", 1), "store-2": at}
        self.proxy = Proxy(
            members, random.Random(1), lambda kind, **more: self.seen.append({"kind": kind, **more})
        )
        listeners, routes = await self.proxy.listen()
        nursery.start_soon(self.proxy.run, listeners)
        self.port = int(routes["store-1"][str(at)].split(":")[1])

    async def _accept(self, listener: trio.SocketListener) -> None:
        while True:
            self.accepted.append(await listener.accept())

    async def dial(self) -> tuple[trio.SocketStream, trio.SocketStream]:
        before = len(self.accepted)
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await until(lambda: len(self.accepted) > before)
        return stream, self.accepted[before]


async def until(holds: Any) -> None:
    with trio.fail_after(BOUND_S):
        while not holds():  # noqa: ASYNC110
            await trio.sleep(0.005)


async def read(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    with trio.fail_after(BOUND_S):
        while len(data) < size:
            part = await stream.receive_some()
            if not part:
                break
            data += part
    return data


async def is_silent(stream: trio.SocketStream) -> bool:
    """Nothing comes, not even an end, while other traffic passes."""
    with trio.move_on_after(0.3):
        await stream.receive_some()
        return False
    return True


@asynccontextmanager
async def network() -> AsyncIterator[Network]:
    async with trio.open_nursery() as nursery:
        made = Network()
        await made.start(nursery)
        yield made
        nursery.cancel_scope.cancel()


async def test_everything_passes_in_order_and_so_does_the_end() -> None:
    async with network() as net:
        one, other = await net.dial()
        sent = b"".join(frame(bytes([number]) * number) for number in range(1, 200))
        await one.send_all(sent)
        await other.send_all(b"answer")
        assert await read(other, len(sent)) == sent
        assert await read(one, 6) == b"answer"
        await one.aclose()
        assert await read(other, 1) == b""


async def test_what_is_held_comes_when_it_heals() -> None:
    async with network() as net:
        one, other = await net.dial()
        net.proxy.hold([PAIR])
        await one.send_all(frame(b"late"))
        await other.send_all(frame(b"back"))
        assert await read(one, 8) == frame(b"back"), "only one way is held"
        await one.aclose()
        assert await is_silent(other), "nobody hears of an end on a way that is cut"
        net.proxy.heal()
        assert await read(other, 100) == frame(b"late")


async def test_a_connection_dialled_meanwhile_says_nothing_before_it_heals() -> None:
    async with network() as net:
        net.proxy.hold([PAIR, BACK])
        one = await trio.open_tcp_stream("127.0.0.1", net.port)
        await one.send_all(frame(b"hello"))
        assert await is_silent(one)
        assert net.accepted == []
        net.proxy.heal()
        await until(lambda: net.accepted)
        assert await read(net.accepted[0], 9) == frame(b"hello")


async def test_a_frame_is_cut_in_its_middle() -> None:
    async with network() as net:
        one, other = await net.dial()
        net.proxy.cut_next_frame([PAIR])
        await one.send_all(frame(b"x" * 996))
        received = b""
        with trio.fail_after(BOUND_S), pytest.raises(trio.BrokenResourceError):
            while True:
                received += await other.receive_some()
        assert len(received) <= 500
        with trio.fail_after(BOUND_S), pytest.raises(trio.BrokenResourceError):
            while True:
                await one.send_all(b"x")
        await net.dial()
        assert [(seen["kind"], seen["link"]) for seen in net.seen] == [("redial", "store-1>store-2")]


async def test_a_half_open_connection_says_nothing_and_does_not_end() -> None:
    async with network() as net:
        one, other = await net.dial()
        assert net.proxy.swallow([PAIR]) == 1
        await one.send_all(frame(b"gone"))
        await one.aclose()
        assert await is_silent(other)
        again, after = await net.dial()
        await again.send_all(frame(b"heard"))
        assert await read(after, 9) == frame(b"heard")
        assert net.seen[0]["kind"] == "redial"


async def test_what_an_older_connection_said_comes_beside_the_newer_one() -> None:
    async with network() as net:
        one, other = await net.dial()
        net.proxy.shape([PAIR], delay_s=(30.0, 30.0))
        await one.send_all(frame(b"old"))
        assert await is_silent(other)
        net.proxy.supersede([PAIR])
        net.proxy.shape([PAIR])
        again, after = await net.dial()
        await again.send_all(frame(b"new"))
        assert await read(after, 7) == frame(b"new")
        net.proxy.heal()
        assert await read(other, 7) == frame(b"old")
        assert net.proxy.overtaken == 1


async def test_frames_that_are_late_or_few_keep_their_order() -> None:
    async with network() as net:
        one, other = await net.dial()
        net.proxy.shape([PAIR], delay_s=(0.0, 0.02))
        sent = b"".join(frame(bytes([number])) for number in range(50))
        await one.send_all(sent)
        assert await read(other, len(sent)) == sent
        net.proxy.shape([PAIR], bytes_per_s=10)
        await one.send_all(frame(b"x" * 996))
        assert await is_silent(other)
        net.proxy.heal()
        assert await read(other, 1000) == frame(b"x" * 996)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 100])
def test_borders_are_found_however_the_bytes_arrive(step: int) -> None:
    frames = [frame(b"a"), frame(b""), frame(b"b" * 9), frame(b"c" * 300)]
    stream, borders = b"".join(frames), FrameBorders()
    pieces = [piece for at in range(0, len(stream), step) for piece in borders.split(stream[at : at + step])]
    assert b"".join(data for data, _ in pieces) == stream
    begun: list[bytes] = []
    for data, begins in pieces:
        if begins:
            begun.append(data)
        else:
            begun[-1] += data
    assert begun == frames
