"""What leaves on one connection: frames gathered into few sends, and sends that never wait.

Answers are posted and leave together in the writer's next turn; a push goes straight to the socket while
that takes it. One writer task per connection moves on whatever the socket did not take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from raftkube.net import Connection

_SEND_BYTES: Final = 262_144  # frames are joined into sends of about this size


class Outbox:
    """The sending side of `connection`. `run` is its writer and must be running."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._posted: list[bytes] = []
        self._posted_bytes = 0
        self._wake = trio.Event()
        self._room = trio.Event()
        self._starved: Callable[[], None] | None = None
        self.broken = False
        self.sent_bytes = 0

    @property
    def posted_bytes(self) -> int:
        """Bytes that wait for the writer."""
        return self._posted_bytes

    def post(self, frame: bytes) -> None:
        """Send `frame` soon, behind what was posted before. The caller bounds how much."""
        self._posted.append(frame)
        self._posted_bytes += len(frame)
        self._wake.set()

    def try_send(self, frame: bytes) -> bool:
        """Hand `frame` to the socket now; False: the socket is full, try again when `on_room` calls.

        A connection that turns out broken takes everything: its reader ends it.
        """
        try:
            taken = self._connection.send_nowait(frame)
            if taken:
                self.sent_bytes += len(frame)
            if not taken or self._connection.unsent:
                self._wake.set()
            return taken
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.broken = True
            return True

    def send(self, frame: bytes) -> None:
        """Now if nothing waits, else behind what waits."""
        if self._posted or not self.try_send(frame):
            self.post(frame)

    async def send_wait(self, frame: bytes) -> None:
        """As `try_send`, waiting for room where there is none."""
        while not self.try_send(frame):
            room = self._room
            await room.wait()
        await trio.lowlevel.checkpoint()

    async def wait_room(self, posted_bytes_max: int) -> None:
        """Wait until at most so many posted bytes wait for the writer."""
        while self._posted_bytes > posted_bytes_max and not self.broken:
            room = self._room
            await room.wait()

    def on_room(self, callback: Callable[[], None]) -> None:
        """`callback` is called after each time the writer has emptied the socket's backlog."""
        self._starved = callback

    async def run(self) -> None:
        """Write until cancelled or broken; a broken connection only ends the writer."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await self._write_all()
                self._announce_room()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.broken = True
        finally:
            self._announce_room()

    async def _write_all(self) -> None:
        while self._posted:
            data = self._take()
            await self._connection.send_all(data)
            self._announce_room()
        await self._connection.drain()

    def _take(self) -> bytes:
        """The oldest posted frames that make about one send."""
        taken_bytes = count = 0
        for frame in self._posted:
            taken_bytes += len(frame)
            count += 1
            if taken_bytes >= _SEND_BYTES:
                break
        data = b"".join(self._posted[:count])
        del self._posted[:count]
        self._posted_bytes -= taken_bytes
        self.sent_bytes += taken_bytes
        return data

    def _announce_room(self) -> None:
        room, self._room = self._room, trio.Event()
        room.set()
        if self._starved is not None and not self.broken:
            self._starved()
