"""The HTTP server over real sockets: framing, limits, streams, drain, hostile clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
import pytest
import trio

from raftkube.api.status import bad_request
from raftkube.net import Address, Connection
from raftkube.net.http import (
    AnyResponse,
    BodySender,
    Request,
    Response,
    StreamResponse,
    UpgradeResponse,
)
from raftkube.net.http_server import HttpLimits, serve_http
from raftkube.net.tcp import TcpNetwork

LOOPBACK = Address("127.0.0.1", 0)
Handler = Callable[[Request], Awaitable[AnyResponse]]


async def echo(request: Request) -> Response:
    seen = [request.method, request.path, request.raw_path, request.query, request.body.decode("latin-1")]
    return Response(200, orjson.dumps(seen))


@asynccontextmanager
async def serving(
    handler: Handler, limits: HttpLimits | None = None, stop: trio.Event | None = None
) -> AsyncIterator[Connection]:
    network = TcpNetwork()
    async with trio.open_nursery() as nursery:

        async def start(*, task_status: trio.TaskStatus[Address]) -> None:
            listener = await network.listen(LOOPBACK, None)
            await serve_http(
                listener, handler, limits=limits or HttpLimits(), stop=stop, task_status=task_status
            )

        address = await nursery.start(start)
        connection = await network.connect(address, None)
        with trio.fail_after(20):
            yield connection
        connection.abort()
        nursery.cancel_scope.cancel()


async def forever(sender: BodySender) -> None:
    await trio.sleep_forever()


async def read_to_end(connection: Connection) -> bytes:
    parts = []
    try:
        while data := await connection.receive_some():
            parts.append(data)
    except trio.BrokenResourceError:
        pass
    return b"".join(parts)


async def read_until(connection: Connection, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        more = await connection.receive_some()
        assert more, data
        data += more
    return data


async def converse(message: bytes, handler: Handler = echo, limits: HttpLimits | None = None) -> bytes:
    """All that the server says to `message` until it closes."""
    async with serving(handler, limits) as connection:
        await connection.send_all(message)
        return await read_to_end(connection)


async def test_get_and_keep_alive_in_one_connection() -> None:
    async with serving(echo) as connection:
        for number in range(3):
            await connection.send_all(b"GET /a%%20b/%d?x=1 HTTP/1.1\r\nHost: h\r\n\r\n" % number)
            answer = await read_until(connection, b"]")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: ")
            expected = ["GET", f"/a b/{number}", f"/a%20b/{number}", "x=1", ""]
            assert orjson.loads(answer.partition(b"\r\n\r\n")[2]) == expected


async def test_pipelined_requests_are_answered_in_order() -> None:
    message = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    answer = await converse(message)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.index(b'"/1"') < answer.index(b'"/2"')


async def test_a_good_request_before_a_bad_one_is_answered_first() -> None:
    answer = await converse(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nBAD\r\n\r\n")
    assert answer.index(b"HTTP/1.1 200 OK") < answer.index(b"HTTP/1.1 400 Bad Request")


async def test_chunked_body_in_pieces_with_trailer() -> None:
    async with serving(echo) as connection:
        await connection.send_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab")
        await connection.send_all(b"c\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n")
        assert b'"abcde"' in await read_until(connection, b"]")


async def test_expect_continue() -> None:
    async with serving(echo) as connection:
        await connection.send_all(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.send_all(b"hi")
        assert b'"hi"' in await read_until(connection, b"]")


async def test_http_1_0_closes() -> None:
    answer = await converse(b"GET / HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" in answer


async def test_head_has_length_and_no_body() -> None:
    answer = await converse(b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert b"Content-Length: 22" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_absolute_form() -> None:
    answer = await converse(b"GET http://h:1/x?y HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2]) == ["GET", "/x", "/x", "y", ""]


HOST = b"\r\nHost: h\r\n"
REFUSED = {
    "length and coding": (
        b"POST / HTTP/1.1" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding and length": (
        b"POST / HTTP/1.1" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "a signed length": (b"POST / HTTP/1.1" + HOST + b"Content-Length: +3\r\n\r\nabc", 400),
    "another coding": (
        b"POST / HTTP/1.1" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "a coding twice": (
        b"POST / HTTP/1.1" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "a coding on HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a bad chunk length": (
        b"POST / HTTP/1.1" + HOST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    "a folded header": (b"GET / HTTP/1.1" + HOST + b"X: a\r\n b\r\n\r\n", 400),
    "a space before the colon": (b"GET / HTTP/1.1" + HOST + b"X : a\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1" + HOST + b"Host: i\r\n\r\n", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: h\n\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a NUL in the target": (b"GET /a\x00b HTTP/1.1" + HOST + b"\r\n", 400),
    "a path that is not UTF-8": (b"GET /%ff HTTP/1.1" + HOST + b"Connection: close\r\n\r\n", 400),
    "CONNECT": (b"CONNECT h:1 HTTP/1.1" + HOST + b"\r\n", 400),
    "an unknown method": (b"FOO / HTTP/1.1" + HOST + b"\r\n", 400),
    "another expectation": (b"POST / HTTP/1.1" + HOST + b"Content-Length: 1\r\nExpect: x\r\n\r\na", 417),
    "a body too large": (b"POST / HTTP/1.1" + HOST + b"Content-Length: 1001\r\n\r\n", 413),
    "a chunked body too large": (
        b"POST / HTTP/1.1" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, 413),
    "a head too large": (b"GET / HTTP/1.1" + HOST + b"X: " + b"x" * 3000, 431),
    "too many headers": (b"GET / HTTP/1.1" + HOST + b"X: 1\r\n" * 30 + b"\r\n", 431),
}  # fmt: skip


@pytest.mark.parametrize(("message", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_refused(message: bytes, code: int) -> None:
    handled = []

    async def handler(request: Request) -> Response:
        handled.append(request)
        return Response(200)

    limits = HttpLimits(header_bytes_max=2000, header_count_max=20, body_bytes_max=1000)
    answer = await converse(message, handler, limits)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % code)
    assert b"Connection: close" in head
    status = orjson.loads(body)
    assert (status["kind"], status["code"]) == ("Status", code)
    assert handled == []


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (b"GET / HT", b"the head did not arrive"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc", b"the body did not"),
    ],
    ids=["head", "body"],
)
async def test_a_client_that_dribbles_is_cut_off(message: bytes, what: bytes) -> None:
    answer = await converse(message, limits=HttpLimits(header_timeout_s=0.05, body_timeout_s=0.05))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert what in answer


async def test_an_idle_connection_is_closed_silently() -> None:
    assert await converse(b"", limits=HttpLimits(idle_timeout_s=0.05)) == b""


async def test_handler_errors_become_statuses_and_the_connection_lives() -> None:
    async def handler(request: Request) -> Response:
        if request.path == "/bug":
            raise KeyError("secret detail")
        if request.path == "/bad":
            raise bad_request("no such thing")
        return Response(200, b"fine")

    async with serving(handler) as connection:
        await connection.send_all(b"GET /bug HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = await read_until(connection, b"}")
        assert answer.startswith(b"HTTP/1.1 500 Internal Server Error")
        assert b"secret" not in answer
        assert b'"InternalError"' in answer
        await connection.send_all(b"GET /bad HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b'"no such thing"' in await read_until(connection, b'"code":400')
        await connection.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"fine" in await read_until(connection, b"fine")


async def test_a_stream_flushes_its_head_then_ends_and_the_connection_lives() -> None:
    go = trio.Event()

    async def run(sender: BodySender) -> None:
        await go.wait()
        await sender.send(b"one\n")
        assert sender.send_nowait(b"")
        assert sender.send_nowait(b"two\n")
        await sender.drain()

    async def handler(request: Request) -> AnyResponse:
        return StreamResponse(200, run, content_type="text/plain")

    async with serving(handler) as connection:
        for _ in range(2):
            await connection.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            head = await read_until(connection, b"\r\n\r\n")
            assert b"Transfer-Encoding: chunked" in head
            go.set()
            body = await read_until(connection, b"0\r\n\r\n")
            assert (head + body).endswith(b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n")


async def test_a_request_sent_during_a_stream_is_answered_after_it() -> None:
    go = trio.Event()

    async def handler(request: Request) -> AnyResponse:
        if request.path == "/after":
            return Response(200, b"later")
        return StreamResponse(200, lambda sender: go.wait())

    async with serving(handler) as connection:
        await connection.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await read_until(connection, b"\r\n\r\n")
        await connection.send_all(b"GET /after HTTP/1.1\r\nHost: h\r\n\r\n")
        go.set()
        assert (await read_until(connection, b"later")).startswith(b"0\r\n\r\nHTTP/1.1 200")


async def test_a_stream_is_cancelled_when_the_client_goes() -> None:
    cancelled = trio.Event()

    async def run(sender: BodySender) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async def handler(request: Request) -> AnyResponse:
        return StreamResponse(200, run)

    async with serving(handler) as connection:
        await connection.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await read_until(connection, b"\r\n\r\n")
        connection.abort()
        await cancelled.wait()


async def test_a_stream_that_fails_does_not_look_complete() -> None:
    async def run(sender: BodySender) -> None:
        await sender.send(b"part")
        raise ValueError("bug")

    async def handler(request: Request) -> AnyResponse:
        return StreamResponse(200, run)

    answer = await converse(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", handler)
    assert b"part" in answer
    assert not answer.endswith(b"0\r\n\r\n")


async def test_a_stream_over_http_1_0_is_plain_bytes_until_close() -> None:
    async def handler(request: Request) -> AnyResponse:
        return StreamResponse(200, lambda sender: sender.send(b"raw"))

    answer = await converse(b"GET / HTTP/1.0\r\n\r\n", handler)
    assert answer.endswith(b"\r\n\r\nraw")
    assert b"chunked" not in answer


async def test_upgrade_hands_the_connection_over_with_early_bytes() -> None:
    async def run(connection: Connection, early: bytes) -> None:
        await connection.send_all(b"got " + early + await connection.receive_some())

    async def handler(request: Request) -> AnyResponse:
        return UpgradeResponse(run, [("Upgrade", "x"), ("Connection", "Upgrade")])

    async with serving(handler) as connection:
        await connection.send_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nab")
        assert (await read_until(connection, b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await connection.send_all(b"cd")
        assert (await read_to_end(connection)).endswith(b"got abcd")


async def test_stop_ends_streams_cleanly_and_answers_what_is_in_flight() -> None:
    stop, working, release = trio.Event(), trio.Event(), trio.Event()

    async def handler(request: Request) -> AnyResponse:
        if request.path == "/stream":
            return StreamResponse(200, forever)
        working.set()
        await release.wait()
        return Response(200, b"done")

    network = TcpNetwork()
    async with trio.open_nursery() as nursery:
        listener = await network.listen(LOOPBACK, None)
        ended = trio.Event()

        async def start() -> None:
            await serve_http(listener, handler, stop=stop)
            ended.set()

        nursery.start_soon(start)
        idle, stream, slow = [await network.connect(listener.address, None) for _ in range(3)]
        await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
        await read_until(stream, b"\r\n\r\n")
        await slow.send_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        await working.wait()
        stop.set()
        with trio.fail_after(20):
            assert await read_to_end(idle) == b""
            assert await read_to_end(stream) == b"0\r\n\r\n"
            release.set()
            answer = await read_to_end(slow)
            await ended.wait()
        assert answer.endswith(b"done")
        assert b"Connection: close" in answer
        with pytest.raises(OSError):
            await network.connect(listener.address, None)


PIECES = [
    bytes([65 + number % 26]) * size for number, size in enumerate((1, 300_000, 0, 7, 262_144, 4_000) * 9)
]


async def in_pieces(request: Request) -> Response:
    return Response(200, b"first ", pieces=PIECES if request.path == "/big" else [])


@pytest.mark.parametrize("path", ["/big", "/small"])
async def test_an_answer_in_pieces_is_one_body(path: str) -> None:
    body = b"first " + (b"".join(PIECES) if path == "/big" else b"")
    answer = await converse(
        f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode(), in_pieces
    )
    head, _, got = answer.partition(b"\r\n\r\n")
    assert got == body
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head


async def test_an_answer_in_pieces_to_head_is_its_length() -> None:
    answer = await converse(b"HEAD /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", in_pieces)
    assert b"\r\nContent-Length: %d\r\n" % (6 + sum(map(len, PIECES))) in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_others_are_answered_while_a_large_answer_waits_for_its_reader() -> None:
    async with serving(in_pieces) as slow:
        await slow.send_all(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n" * 3)  # and reads none of it yet
        address = Address(*slow._sock.getpeername())  # type: ignore[attr-defined]
        other = await TcpNetwork().connect(address, None)
        await other.send_all(b"GET /small HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert (await read_to_end(other)).endswith(b"\r\n\r\nfirst ")
        other.abort()
        expected = 3 * sum(map(len, PIECES))
        got = 0
        while got < expected:
            got += len(await slow.receive_some())
