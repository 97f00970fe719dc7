"""The HTTP client against our server and against servers that misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from raftkube.net import Address, Connection
from raftkube.net.http import AnyResponse, BodySender, Request, Response, StreamResponse
from raftkube.net.http_client import BadResponse, ClientLimits, ConnectError, HttpClient, ResponseLost
from raftkube.net.http_server import serve_http
from raftkube.net.tcp import TcpNetwork, serve

LOOPBACK = Address("127.0.0.1", 0)


@asynccontextmanager
async def http(handler: Callable[[Request], Awaitable[AnyResponse]]) -> AsyncIterator[HttpClient]:
    network = TcpNetwork()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_http, await network.listen(LOOPBACK, None), handler)
        with trio.fail_after(20):
            yield HttpClient(network, address, None)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def raw(
    *scripts: bytes, limits: ClientLimits | None = None
) -> AsyncIterator[tuple[HttpClient, list[bytes]]]:
    """Each connection in turn answers whatever it gets with its script, then closes."""
    network, received = TcpNetwork(), list[bytes]()
    remaining = list(scripts)

    async def handler(connection: Connection) -> None:
        script = remaining.pop(0)
        received.append(await connection.receive_some())
        if script:
            await connection.send_all(script)
        await connection.aclose()

    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve, await network.listen(LOOPBACK, None), handler)
        with trio.fail_after(20):
            yield HttpClient(network, address, None, limits=limits or ClientLimits()), received
        nursery.cancel_scope.cancel()


async def test_requests_reuse_one_connection() -> None:
    class Counting(TcpNetwork):
        dialled = 0

        async def connect(self, address, tls):  # type: ignore[no-untyped-def]
            self.dialled += 1
            return await super().connect(address, tls)

    async def handler(request: Request) -> Response:
        return Response(201, request.method.encode() + request.body, headers=[("X-A", "1"), ("X-A", "2")])

    async with http(handler) as client:
        network = Counting()
        client = HttpClient(network, client.address, None)
        for method in ("GET", "POST", "PUT", "DELETE", "GET"):
            answer = await client.request(method, "/p?q=1", headers=[("X", "y")], body=b"body")
            assert (answer.status, answer.body) == (201, method.encode() + b"body")
            assert answer.headers["x-a"] == "1, 2"
        assert network.dialled == 1
        await client.aclose()


async def test_concurrent_requests_do_not_wait_for_each_other() -> None:
    release = trio.Event()

    async def handler(request: Request) -> Response:
        if request.path == "/slow":
            await release.wait()
        release.set()
        return Response(200, request.path.encode())

    async with http(handler) as client:
        answers: list[bytes] = []

        async def get(path: str) -> None:
            answers.append((await client.request("GET", path)).body)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, "/slow")
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(get, "/fast")
        assert sorted(answers) == [b"/fast", b"/slow"]


async def test_stream_gives_chunks_as_they_come() -> None:
    go = trio.Event()

    async def run(sender: BodySender) -> None:
        await sender.send(b"one")
        await go.wait()
        await sender.send(b"two")

    async def handler(request: Request) -> AnyResponse:
        return StreamResponse(200, run)

    async with http(handler) as client, client.stream("GET", "/") as stream:
        assert stream.status == 200
        assert await anext(stream) == b"one"
        go.set()
        assert [chunk async for chunk in stream] == [b"two"]


async def test_leaving_a_stream_early_ends_it_at_the_server() -> None:
    ended = trio.Event()

    async def run(sender: BodySender) -> None:
        try:
            await sender.send(b"x")
            await trio.sleep_forever()
        finally:
            ended.set()

    async def handler(request: Request) -> AnyResponse:
        return StreamResponse(200, run)

    async with http(handler) as client:
        async with client.stream("GET", "/") as stream:
            await anext(stream)
        await ended.wait()


async def test_nobody_there_is_a_connect_error() -> None:
    network = TcpNetwork()
    listener = await network.listen(LOOPBACK, None)
    await listener.aclose()
    with pytest.raises(ConnectError, match="was not reached") as caught:
        await HttpClient(network, listener.address, None).request("POST", "/")
    assert caught.value.definite


@pytest.mark.parametrize(
    "script",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Len", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"],
    ids=["nothing", "half a head", "half a body"],
)
async def test_a_missing_answer_is_indefinite(script: bytes) -> None:
    async with raw(script) as (client, _):
        with pytest.raises(ResponseLost) as caught:
            await client.request("POST", "/", body=b"x")
        assert not caught.value.definite


async def test_a_cut_chunked_stream_is_lost_not_ended() -> None:
    async with raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n") as (client, _):
        async with client.stream("GET", "/") as stream:
            assert await anext(stream) == b"abc"
            with pytest.raises(ResponseLost):
                await anext(stream)


async def test_a_body_without_length_ends_with_the_connection() -> None:
    async with raw(b"HTTP/1.1 200 OK\r\n\r\nall of it") as (client, _):
        assert (await client.request("GET", "/")).body == b"all of it"


@pytest.mark.parametrize(
    "script",
    [
        b"SMTP ready\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
    ],
    ids=["not HTTP", "long head", "long body"],
)
async def test_limits_and_nonsense(script: bytes) -> None:
    limits = ClientLimits(header_bytes_max=1000, body_bytes_max=1000)
    async with raw(script, limits=limits) as (client, _):
        with pytest.raises(BadResponse):
            await client.request("GET", "/")


ONE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
TWO = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_kept_connection_that_died_is_not_noticed_by_the_caller(method: str) -> None:
    async with raw(ONE, TWO) as (client, received):
        assert (await client.request(method, "/1")).body == b"one"
        await trio.testing.wait_all_tasks_blocked(0.01)  # the server's close arrives
        assert (await client.request(method, "/2")).body == b"two"
        assert [message.split()[1] for message in received] == [b"/1", b"/2"]


async def test_informational_answers_are_skipped() -> None:
    async with raw(b"HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n" + ONE) as (client, _):
        answer = await client.request("GET", "/")
        assert (answer.status, answer.body) == (200, b"one")
        assert "x" not in answer.headers


async def test_head_has_no_body() -> None:
    async def handler(request: Request) -> Response:
        return Response(200, b"12345")

    async with http(handler) as client:
        answer = await client.request("HEAD", "/")
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, "5", b"")
        assert (await client.request("GET", "/")).body == b"12345"
