"""Unix sockets for the control of a cluster: the file's mode is the authorization."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import trio

from raftkube.errors import ConfigError
from raftkube.net.connection import SocketConnection


class UnixListener:
    """A socket file with mode 0600 that accepts; a stale file is replaced."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError: it cannot be bound."""
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            path.unlink(missing_ok=True)
            with _short(path) as short:
                self._sock.bind(short)
            path.chmod(0o600)
            self._sock.listen(64)
        except OSError as error:
            self._sock.close()
            raise ConfigError(f"cannot listen on {str(path)!r}: {error.strerror or error}") from error
        self._sock.setblocking(False)

    async def accept(self) -> SocketConnection:
        """The next connection."""
        while True:
            try:
                return SocketConnection(self._sock.accept()[0], None)
            except (BlockingIOError, ConnectionError):
                await trio.lowlevel.wait_readable(self._sock)

    async def aclose(self) -> None:
        """Stop listening and remove the file."""
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        self._path.unlink(missing_ok=True)
        await trio.lowlevel.checkpoint()


async def connect_unix(path: Path) -> SocketConnection:
    """Raises OSError: nobody listens there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with _short(path) as short:
            sock.connect(short)
    except BaseException:
        sock.close()
        raise
    await trio.lowlevel.checkpoint()
    return SocketConnection(sock, None)


class _short:
    """A name for `path` below the 108 bytes that sun_path holds, through an open directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._directory = -1

    def __enter__(self) -> str:
        self._directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._directory}/{self._path.name}"

    def __exit__(self, *exc: object) -> None:
        os.close(self._directory)
