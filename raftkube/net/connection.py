"""One TCP connection, plain or TLS, with a send that never waits.

TLS runs on memory buffers (`ssl.SSLObject`), so encrypting never waits for the socket; whatever the
socket did not take stands in `_out` and is moved on by the next send or `drain`. trio's own SSLStream
has no such send, and the watch hub needs one.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
from contextlib import nullcontext
from typing import Any, Final

import trio

from raftkube.limits import HANDSHAKE_TIMEOUT_S
from raftkube.net import PeerIdentity

_TLS_READ_BYTES: Final = 262_144
# The buffer of a receive follows what arrives: one from 128 KiB on costs three system calls by itself.
_RECEIVE_BYTES_MIN: Final = 65_536
_RECEIVE_BYTES_MAX: Final = 1_048_576
_RECORD_BYTES: Final = 16_384
_SHUTDOWN_ERRORS = (OSError, ssl.SSLError)


class SocketConnection:
    """A connected non-blocking socket; `context` makes it TLS (server side unless a name is given).

    turns: taken for each step of a handshake. A step computes for about a millisecond, and ten thousand
    clients that come back at once are all ready at once: whoever is connected already is served between them.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext | None,
        server_hostname: str | None = None,
        turns: trio.Semaphore | None = None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._closed = False
        self._broken = False
        self._drained = True  # the socket had no more when it was last read
        self._receive_bytes = _RECEIVE_BYTES_MIN
        self._waited = False  # the receive at hand has let other tasks run
        self._out = bytearray()
        self._flush_lock = trio.Lock()
        self._turns = turns
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._peer: PeerIdentity | None = None
        if context is not None:
            self._tls = context.wrap_bio(
                self._incoming,
                self._outgoing,
                server_side=server_hostname is None,
                server_hostname=server_hostname,
            )

    @property
    def peer(self) -> PeerIdentity | None:
        return self._peer

    async def handshake(self) -> None:
        if self._tls is None:
            await trio.lowlevel.checkpoint()
            return
        with trio.fail_after(HANDSHAKE_TIMEOUT_S) as patience:
            while not await self._shake_hands(self._tls, patience):
                await self._flush_tls()
                await self._feed()
            await self._flush_tls()
        self._turns = None
        self._peer = _identity(self._tls)

    async def _shake_hands(self, tls: ssl.SSLObject, patience: trio.CancelScope) -> bool:
        """One step; whether it was the last. The wait for its turn is not the other end's fault."""
        left_s, patience.deadline = patience.deadline - trio.current_time(), math.inf
        async with self._turns or nullcontext():
            patience.deadline = trio.current_time() + left_s
            try:
                self._step(tls)
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLError as error:
                failure = error
            else:
                return True
        with trio.move_on_after(1):
            await self._flush_tls_quietly()  # the alert says why to the other end
        raise trio.BrokenResourceError(f"TLS handshake failed: {failure.reason or failure}") from failure

    def _step(self, tls: ssl.SSLObject) -> None:
        tls.do_handshake()

    def send_nowait(self, data: bytes) -> bool:
        self._check_open()
        if self._out and not self._push():
            return False
        if self._tls is None:
            self._write(data)
        else:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise self._break(error) from error
            self._write(self._outgoing.read())
        return True

    @property
    def unsent(self) -> bool:
        return bool(self._out)

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._out:
            async with self._flush_lock:
                while self._out and not self._push():
                    await trio.lowlevel.wait_writable(self._sock)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def send_all(self, data: bytes) -> None:
        while not self.send_nowait(data):
            await self.drain()
        await self.drain()

    async def receive_some(self, max_bytes: int = 262_144) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._waited = False
        while True:
            self._check_open()
            try:
                data = await self._receive(max_bytes) if self._tls is None else self._decrypt(max_bytes)
                if not self._waited:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                return data
            except ssl.SSLWantReadError:
                if not await self._feed():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise self._break(error) from error
            except OSError as error:
                raise self._break(error) from error

    @property
    def peer_closed(self) -> bool:
        if self._closed or self._broken:
            return True
        if not hasattr(select, "POLLRDHUP"):  # as on macOS: what is not known is not claimed
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def aclose(self) -> None:
        if not self._closed and not self._broken and self._tls is not None and not self._out:
            try:
                self._tls.unwrap()
            except _SHUTDOWN_ERRORS:
                pass  # SSLWantRead: our close_notify is written, the answer is not awaited
            try:
                self._sock.send(self._outgoing.read())
            except _SHUTDOWN_ERRORS:
                pass
        self.abort()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this connection was closed here")
        if self._broken:
            raise trio.BrokenResourceError("the connection is broken")

    def _break(self, error: Exception) -> trio.BrokenResourceError:
        self._broken = True
        return trio.BrokenResourceError(str(error) or type(error).__name__)

    def _write(self, data: bytes) -> None:
        """Send what the socket takes; keep the rest in `_out` (which was empty)."""
        try:
            sent = self._sock.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._break(error) from error
        if sent < len(data):
            self._out += memoryview(data)[sent:]

    def _push(self) -> bool:
        """Try to send `_out`; True if it is empty now."""
        self._check_open()
        try:
            while self._out:
                sent = self._sock.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._break(error) from error
        return True

    async def _flush_tls(self) -> None:
        self._out += self._outgoing.read()
        await self.drain()

    async def _flush_tls_quietly(self) -> None:
        try:
            await self._flush_tls()
        except trio.BrokenResourceError:
            pass

    def _decrypt(self, max_bytes: int) -> bytes:
        """All records that have arrived, up to `max_bytes`: OpenSSL gives one at a time. Raises
        SSLWantReadError: there is none; SSLError, but not before what came earlier was returned."""
        assert self._tls is not None
        parts = [self._tls.read(min(max_bytes, _RECORD_BYTES))]
        left = max_bytes - len(parts[0])
        while parts[-1] and left > 0 and self._incoming.pending + self._tls.pending():
            try:
                parts.append(self._tls.read(min(left, _RECORD_BYTES)))
            except ssl.SSLError:  # more is wanted, or it fails, or the stream has ended: the next call tells
                break
            left -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _receive(self, max_bytes: int) -> bytes:
        """What the socket has, waiting until it has something. Raises OSError."""
        while True:
            self._check_open()
            if self._drained:
                await trio.lowlevel.wait_readable(self._sock)
                self._drained, self._waited = False, True
                self._check_open()
            size = min(max_bytes, self._receive_bytes)
            try:
                data = self._sock.recv(size)
            except BlockingIOError:
                self._drained = True
                continue
            self._drained = len(data) < size  # to ask again at once would be in vain
            if not self._drained:
                self._receive_bytes = min(2 * size, _RECEIVE_BYTES_MAX)
            elif len(data) < size // 4:
                self._receive_bytes = max(size // 2, _RECEIVE_BYTES_MIN)
            return data

    async def _feed(self) -> bool:
        """Move ciphertext from the socket into TLS; False at the end of the stream."""
        try:
            data = await self._receive(_TLS_READ_BYTES)
        except OSError as error:
            raise self._break(error) from error
        if not data:
            self._incoming.write_eof()
            if self._tls is not None and self._tls.version() is None:
                raise self._break(ConnectionResetError("closed during the TLS handshake"))
            return False
        self._incoming.write(data)
        if self._outgoing.pending:
            self._out += self._outgoing.read()
            self._push()
        return True


def _identity(tls: ssl.SSLObject) -> PeerIdentity | None:
    certificate: dict[str, Any] | None = tls.getpeercert()
    if not certificate:
        return None
    common_name = ""
    organizations = []
    for relative_name in certificate.get("subject", ()):
        for name, value in relative_name:
            if name == "commonName":
                common_name = str(value)
            elif name == "organizationName":
                organizations.append(str(value))
    names = tuple(
        str(value) for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI")
    )
    return PeerIdentity(common_name, tuple(organizations), names)
