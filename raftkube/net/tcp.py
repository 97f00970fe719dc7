"""The real network: TCP sockets, and the accept loop of every server."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Final

import structlog
import trio

from raftkube.errors import ConfigError
from raftkube.net import Address, Connection, ConnectionHandler, Listener, TlsFiles
from raftkube.net.connection import SocketConnection
from raftkube.net.tls import TlsContexts

log = structlog.get_logger(__name__)

_ACCEPT_RETRY_ERRNOS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_ACCEPT_BACKLOG: Final = (
    65_535  # the system's limit is lower; what finds no place is sent again seconds later
)
_ACCEPTS_IN_A_ROW: Final = 32
HANDSHAKE_STEPS_AT_ONCE: Final = 2  # of one listener, between two looks at who else is ready


class TcpNetwork:
    """Dials and binds real sockets."""

    def __init__(self) -> None:
        self._contexts = TlsContexts()

    async def connect(self, address: Address, tls: TlsFiles | None) -> SocketConnection:
        context = None if tls is None else self._contexts.get(tls, server=False)
        sock = socket.socket(
            socket.AF_INET6 if ":" in address.host else socket.AF_INET,
            socket.SOCK_STREAM | socket.SOCK_CLOEXEC,
        )
        connected = trio.socket.from_stdlib_socket(sock)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await connected.connect((await _resolved(address.host), address.port))
            server_name = None if tls is None else (tls.server_name or address.host)
            connection = SocketConnection(sock, context, server_name)
            try:
                await connection.handshake()
            except trio.BrokenResourceError as error:
                raise ConnectionError(f"{address}: {error}") from error
            except trio.TooSlowError as error:
                raise ConnectionError(f"{address}: no TLS handshake in time") from error
        except BaseException:
            connected.close()
            raise
        return connection

    async def listen(self, address: Address, tls: TlsFiles | None) -> TcpListener:
        if tls is not None:
            self._contexts.get(tls, server=True)  # bad files are reported now, not at the first client
        sock = socket.socket(
            socket.AF_INET6 if ":" in address.host else socket.AF_INET,
            socket.SOCK_STREAM | socket.SOCK_CLOEXEC,
        )
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((_numeric(address.host), address.port))
            sock.listen(_ACCEPT_BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise ConfigError(f"cannot listen on {address}: {error.strerror or error}") from error
        await trio.lowlevel.checkpoint()
        return TcpListener(sock, None if tls is None else lambda: self._contexts.get(tls, server=True))


class TcpListener:
    """A bound socket; each connection gets the TLS context of the moment it arrived."""

    def __init__(self, sock: socket.socket, context: Callable[[], ssl.SSLContext] | None) -> None:
        self._sock = sock
        self._context = context
        self._turns = trio.Semaphore(HANDSHAKE_STEPS_AT_ONCE)
        self._in_a_row = 0
        name = sock.getsockname()
        self._address = Address(name[0], name[1])
        self._closed = False

    @property
    def address(self) -> Address:
        return self._address

    async def accept(self) -> SocketConnection:
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this listener was closed here")
            try:
                sock, _ = self._sock.accept()
                break
            except (BlockingIOError, ConnectionError):
                self._in_a_row = 0
                await trio.lowlevel.wait_readable(self._sock)
            except OSError as error:
                if error.errno not in _ACCEPT_RETRY_ERRNOS:
                    raise
                log.warning("accept_failed", address=str(self._address), error=str(error))
                await trio.sleep(0.1)
        self._in_a_row = (self._in_a_row + 1) % _ACCEPTS_IN_A_ROW
        if not self._in_a_row:  # so that a storm does not overflow the backlog, nor keep others waiting
            await trio.lowlevel.checkpoint()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return SocketConnection(sock, None if self._context is None else self._context(), turns=self._turns)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        await trio.lowlevel.checkpoint()


async def serve(
    listener: Listener,
    handler: ConnectionHandler,
    *,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept until cancelled; each connection's handshake and handler run in a task of their own. When the
    listener is closed, wait for the handlers that run, and return.

    `started` gives the bound address. A connection that fails is logged and closed; it never ends the
    server. Cancelled: every handler is cancelled and every connection closed.
    """

    async def one(connection: Connection) -> None:
        try:
            await connection.handshake()
            await handler(connection)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            log.debug("connection_ended", error=str(error) or type(error).__name__)
        except Exception:  # the boundary: one bad connection never kills a server
            log.exception("connection_failed")
        finally:
            connection.abort()

    try:
        async with trio.open_nursery() as nursery:
            task_status.started(listener.address)
            with contextlib.suppress(trio.ClosedResourceError):
                while True:
                    nursery.start_soon(one, await listener.accept())
    finally:
        with trio.move_on_after(2, shield=True):
            await listener.aclose()


async def _resolved(host: str) -> str:
    """As `_numeric`; a name server that is silent stops nobody but the caller. Raises OSError."""
    if host == "localhost" or _is_numeric(host):
        return _numeric(host)
    return await trio.to_thread.run_sync(_numeric, host, abandon_on_cancel=True)


def _numeric(host: str) -> str:
    """An IP address; names are looked up, blocking. Raises OSError, whatever is wrong with the name."""
    if _is_numeric(host):
        return host
    if host == "localhost":
        return "127.0.0.1"
    try:
        return socket.gethostbyname(host)
    except (ValueError, TypeError) as error:  # no name at all, and Python says so in its own ways
        raise OSError(errno.EINVAL, f"{host!r} is not the name of a host") from error


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
