"""A bare TLS socket loop: what this machine can do with the same bytes, without an API server.

It knows no HTTP beyond the end of a request. body: answers each request with the same bytes, one connection
after another. answer: the same for many connections at once, each when a request's last byte has come.
replay: waits for all watchers, then sends each of them the same chunks, one after another. accept: a head,
then silence.
"""

from __future__ import annotations

import select
import socket
import ssl
from pathlib import Path
from typing import Any, Final

from bench.api_cluster import server_context
from bench.api_process import Orders, cpu_s, report

_PIECE: Final = 262_144
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
# How far a watcher may be behind the fastest before it is waited for.
_AHEAD: Final = 64


def run(job: dict[str, Any], orders: Orders) -> None:
    """`job`: mode, pki (folder), file (bytes to send), and for a replay sizes (of each send)."""
    context = server_context(Path(job["pki"]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    report(port=listener.getsockname()[1])
    data = Path(job["file"]).read_bytes() if job.get("file") else b""
    if job["mode"] == "body":
        _serve_body(listener, context, data)
    elif job["mode"] == "answer":
        _Answering(listener, context, _answer_of(data)).serve()
    elif job["mode"] == "accept":
        _accept(listener, context)
    else:
        _replay(_accept(listener, context, job["watchers"]), data, job["sizes"], orders)


def _serve_body(listener: socket.socket, context: ssl.SSLContext, body: bytes) -> None:
    """One connection after another, each request answered with `body`; until killed."""
    answer = memoryview(_answer_of(body))
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(sock, server_side=True) as tls:
            while tls.recv(65_536):
                for start in range(0, len(answer), _PIECE):
                    tls.sendall(answer[start : start + _PIECE])


def _answer_of(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class _Answering:
    """Many connections, whose clients have one request each on the way; until killed."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, answer: bytes) -> None:
        self._listener = listener
        self._context = context
        self._answer = answer
        self._poll = select.epoll()
        self._socks: dict[int, ssl.SSLSocket] = {}
        self._open: set[int] = set()
        self._requests: dict[int, bytes] = {}  # what has come of one

    def serve(self) -> None:
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.EPOLLIN)
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._listener.fileno():
                    _accept_one(self._listener, self._context, self._poll, self._socks)
                else:
                    self._step(fd)

    def _step(self, fd: int) -> None:
        tls = self._socks[fd]
        try:
            if fd not in self._open:
                tls.do_handshake()
                self._open.add(fd)
            data = tls.recv(_PIECE)
        except ssl.SSLWantReadError:
            return
        except OSError:  # it has gone in the middle of something
            data = b""
        if not data:
            self._forget(fd)
            return
        while tls.pending():
            data += tls.recv(_PIECE)
        request = self._requests.pop(fd, b"") + data
        if request_is_whole(request):
            _send_all(tls, self._answer)
        else:
            self._requests[fd] = request

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._socks.pop(fd).close()
        self._open.discard(fd)
        self._requests.pop(fd, None)


def request_is_whole(data: bytes) -> bool:
    """Whether a request's last byte has come, its body included."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    _, given, after = data[: end + 2].lower().partition(b"\r\ncontent-length:")
    length = int(after[: after.find(b"\r\n")]) if given else 0
    return len(data) >= end + 4 + length


def _send_all(tls: ssl.SSLSocket, data: bytes) -> None:
    """Most answers fit into the socket; for the rest of a large one it is waited, as its client reads."""
    try:
        sent = tls.send(data)
    except ssl.SSLWantWriteError:
        sent = 0
    if sent < len(data):
        tls.setblocking(True)
        tls.sendall(data[sent:])
        tls.setblocking(False)


def _accept(listener: socket.socket, context: ssl.SSLContext, count: int = 0) -> list[ssl.SSLSocket]:
    """Accept `count` watches (0: until killed), handshakes included; each request is answered with HEAD."""
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    socks: dict[int, ssl.SSLSocket] = {}
    answered: set[int] = set()
    while not count or len(answered) < count:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                _accept_one(listener, context, poll, socks)
            elif _greet(socks[fd]):
                answered.add(fd)
                poll.unregister(fd)
    poll.close()
    return list(socks.values())


def _accept_one(
    listener: socket.socket, context: ssl.SSLContext, poll: select.epoll, socks: dict[int, ssl.SSLSocket]
) -> None:
    try:
        sock, _ = listener.accept()
    except BlockingIOError:
        return
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    socks[tls.fileno()] = tls
    poll.register(tls.fileno(), select.EPOLLIN)


def _greet(tls: ssl.SSLSocket) -> bool:
    """Go on with the handshake and the request; True once it is answered."""
    try:
        tls.do_handshake()  # nothing once it is done
        tls.recv(65_536)
        tls.send(HEAD)
    except ssl.SSLWantReadError:
        return False
    return True


def _replay(socks: list[ssl.SSLSocket], data: bytes, sizes: list[int], orders: Orders) -> None:
    """Send all of `data` to all; a full socket is waited for by itself."""
    ends, at = [], 0
    for size in sizes:
        at += size
        ends.append(at)
    chunks = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    sends = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    report(state="ready")
    orders.wait()
    before = cpu_s()
    left = _Backlog(socks)
    for number, send in enumerate(sends):
        for sock in socks:
            left.send(sock, send)
        left.wait(_AHEAD if number < len(sends) - 1 else 0)
    report(cpu_s=round(cpu_s() - before, 3), sends=len(sends) * len(socks))
    orders.wait()


class _Backlog:
    """What the sockets did not take."""

    def __init__(self, socks: list[ssl.SSLSocket]) -> None:
        self._waiting: dict[int, tuple[ssl.SSLSocket, list[bytes]]] = {}
        self._poll = select.epoll()
        self._depth = 0

    def send(self, sock: ssl.SSLSocket, data: bytes) -> None:
        waiting = self._waiting.get(sock.fileno())
        if waiting is None:
            try:
                sent = sock.send(data)
            except ssl.SSLWantWriteError:
                sent = 0
            if sent == len(data):
                return
            waiting = self._waiting[sock.fileno()] = (sock, [])
            self._poll.register(sock.fileno(), select.EPOLLOUT)
            data = data[sent:]
        waiting[1].append(data)
        self._depth = max(self._depth, len(waiting[1]))

    def wait(self, depth: int) -> None:
        """Until nobody has more than `depth` sends waiting."""
        while self._waiting and self._depth > depth:
            for fd, _ in self._poll.poll():
                self._drain(fd)
            self._depth = max((len(sends) for _, sends in self._waiting.values()), default=0)

    def _drain(self, fd: int) -> None:
        sock, sends = self._waiting[fd]
        try:
            while sends:
                sent = sock.send(sends[0])
                if sent < len(sends[0]):
                    sends[0] = sends[0][sent:]
                else:
                    del sends[0]
        except ssl.SSLWantWriteError:
            return
        del self._waiting[fd]
        self._poll.unregister(fd)
