"""One outgoing connection with a bounded buffer in front of it."""

from __future__ import annotations

from collections.abc import Callable

import trio

from raftkube.net import Connection


def _nothing() -> None:
    pass


class Link:
    """Takes frames without waiting. Above `pause_bytes` waiting it asks for a pause (and says when it is
    over); above four times as much it drops the connection: the other end does not read."""

    def __init__(self, connection: Connection, pause_bytes: int) -> None:
        self.connection = connection
        self.on_pause: Callable[[], None] = _nothing
        self.on_resume: Callable[[], None] = _nothing
        self._pause_bytes = pause_bytes
        self._frames: list[bytes] = []
        self._bytes = 0
        self._paused = False
        self._sending = False  # `run` holds frames that must go before any newer one
        self._wake = trio.Event()

    def send(self, frame: bytes) -> None:
        """Send or buffer `frame`; a broken connection swallows it."""
        try:
            if not (self._frames or self._sending) and self.connection.send_nowait(frame):
                if self.connection.unsent:
                    self._wake.set()
                return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._wake.set()
        if self._bytes > 4 * self._pause_bytes:
            self.connection.abort()
        elif self._bytes > self._pause_bytes and not self._paused:
            self._paused = True
            self.on_pause()

    async def run(self) -> None:
        """Move the buffer on until the connection breaks."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                self._sending = True
                await self.connection.drain()
                while self._frames:
                    frames, self._frames, self._bytes = self._frames, [], 0
                    await self.connection.send_all(b"".join(frames))
                self._sending = False
                if self._paused:
                    self._paused = False
                    self.on_resume()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.connection.abort()
