"""One connection through the proxy: two streams of frames, each read, held back and handed on by itself.

A frame is a length (u32, big endian) and so many bytes; only its borders are looked at.
"""

from __future__ import annotations

import random
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from raftkube.net import Address

Pair = tuple[str, str]

_LENGTH: Final = struct.Struct(">I")
_READ_BYTES: Final = 262_144
_WAITING_BYTES_MAX: Final = 262_144  # a sender waits beyond that, as for a full socket
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing sends a reset
_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
_CUT_BYTES_MIN: Final = 8


class Ledger(Protocol):
    """What a connection needs of the proxy that it belongs to."""

    rng: random.Random

    def lost(self, pair: Pair) -> None: ...
    def arrived(self) -> int: ...
    def handed_on(self, number: int) -> None: ...


@dataclass(slots=True)
class Way:
    """How bytes pass from one member to another, on any connection between them. `delay_s`: each frame
    waits for a time between the two. `bytes_per_s`: 0 is no limit."""

    held: bool = False
    delay_s: tuple[float, float] = (0.0, 0.0)
    bytes_per_s: int = 0
    cut_next_frame: bool = False
    healed: trio.Event = field(default_factory=trio.Event)

    @property
    def shaped(self) -> bool:
        """Whether frames must wait for their time."""
        return self.delay_s[1] > 0 or self.bytes_per_s > 0

    def heal(self) -> None:
        """Everything passes at once."""
        self.held, self.delay_s, self.bytes_per_s, self.cut_next_frame = False, (0.0, 0.0), 0, False
        self.healed.set()
        self.healed = trio.Event()

    async def until_open(self) -> None:
        """Until it is not held."""
        while self.held:
            await self.healed.wait()

    async def until(self, due_s: float) -> None:
        """Until that time, or until it heals."""
        if self.shaped:
            with trio.move_on_at(due_s):
                await self.healed.wait()

    def due_s(self, size: int, after_s: float, rng: random.Random) -> float:
        """When a frame of `size` bytes that arrives now may leave, behind one that leaves at `after_s`."""
        due_s = trio.current_time()
        if self.delay_s[1] > 0:
            due_s += rng.uniform(*self.delay_s)
        due_s = max(due_s, after_s)
        return due_s + (size / self.bytes_per_s if self.bytes_per_s else 0.0)


class FrameBorders:
    """Cuts a stream at the borders of its frames as it arrives."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    def split(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Pieces of `data`, in order; True: it begins with the head of a frame. The last one may go on in
        the next call."""
        pieces: list[tuple[bytes, bool]] = []
        at = start = 0
        begins = not self._left and not self._head
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
            else:
                step = min(_LENGTH.size - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                at += step
                if len(self._head) < _LENGTH.size:
                    break
                self._left = _LENGTH.unpack(self._head)[0]
                self._head = b""
            if not self._left:
                pieces.append((data[start:at], begins))
                start, begins = at, True
        if start < len(data):
            pieces.append((data[start:], begins))
        return pieces


@dataclass(frozen=True, slots=True)
class _Piece:
    number: int
    data: bytes
    begins: bool
    due_s: float


class _Stream:
    """One direction of a connection."""

    def __init__(self, owner: Proxied, way: Way, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        self._owner, self._way, self._source, self._sink = owner, way, source, sink
        self._borders = FrameBorders()
        self._waiting: deque[_Piece] = deque()
        self._bytes = 0
        self._last_due_s = 0.0
        self._ended = False
        self._moved = trio.Event()

    async def run(self) -> None:
        """Until the source has ended and all of it was handed on, or the sink is broken."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            try:
                await self._hand_on()
            except _BROKEN:
                pass
            nursery.cancel_scope.cancel()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def _read(self) -> None:
        try:
            while data := await self._source.receive_some(_READ_BYTES):
                if self._owner.silent:
                    continue
                for piece, begins in self._borders.split(data):
                    self._take(piece, begins)
                self._move()
                while self._bytes > _WAITING_BYTES_MAX:
                    await self._moved.wait()
        except _BROKEN:
            pass
        self._ended = True
        self._move()

    def _take(self, data: bytes, begins: bool) -> None:
        ledger = self._owner.ledger
        self._last_due_s = self._way.due_s(len(data), self._last_due_s, ledger.rng)
        self._waiting.append(_Piece(ledger.arrived(), data, begins, self._last_due_s))
        self._bytes += len(data)

    async def _hand_on(self) -> None:
        while True:
            while not self._waiting:
                if self._ended:
                    await self._way.until_open()  # nobody hears of an end on a way that is cut
                    return
                await self._moved.wait()
            await self._way.until(self._waiting[0].due_s)
            await self._way.until_open()
            if self._owner.silent:
                self._waiting.clear()
            elif not self._way.cut_next_frame:
                await self._sink.send_all(self._next())
            elif await self._cut():
                return

    def _next(self) -> bytes:
        """All that may leave now."""
        parts: list[bytes] = []
        now_s = trio.current_time()
        while self._waiting and (not parts or not self._way.shaped or self._waiting[0].due_s <= now_s):
            piece = self._waiting.popleft()
            self._owner.ledger.handed_on(piece.number)
            self._bytes -= len(piece.data)
            parts.append(piece.data)
        self._move()
        return b"".join(parts)

    async def _cut(self) -> bool:
        """Hand the first half of a frame on and reset; False if this piece is too short, or not a frame's
        beginning."""
        piece = self._waiting.popleft()
        self._bytes -= len(piece.data)
        if not piece.begins or len(piece.data) < _CUT_BYTES_MIN:
            await self._sink.send_all(piece.data)
            return False
        self._way.cut_next_frame = False
        await self._sink.send_all(piece.data[: len(piece.data) // 2])
        self._owner.reset()
        return True


class Proxied:
    """A connection that the first of `pair` dialled. `silent`: what it says is swallowed."""

    def __init__(self, ledger: Ledger, pair: Pair, forth: Way, back: Way, dialler: trio.SocketStream) -> None:
        self.ledger, self.pair = ledger, pair
        self._forth, self._back = forth, back
        self._dialler = dialler
        self._listener: trio.SocketStream | None = None
        self.silent = False

    async def run(self, address: Address) -> None:
        """Until one end has closed and the other was told; a silent one, until both have closed."""
        await self._forth.until_open()
        await self._back.until_open()
        try:
            listener = self._listener = await trio.open_tcp_stream(address.host, address.port)
        except OSError:
            return  # the dialler is reset: nobody listens
        async with trio.open_nursery() as nursery:

            async def one(stream: _Stream) -> None:
                await stream.run()
                if not self.silent:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(one, _Stream(self, self._forth, self._dialler, listener))
            nursery.start_soon(one, _Stream(self, self._back, listener, self._dialler))

    def lose_dialler(self) -> None:
        """Its end is reset; what it sent before goes on to the other."""
        _reset(self._dialler)

    def reset(self) -> None:
        """Both ends, in the middle of a message."""
        self.ledger.lost(self.pair)
        for stream in self._ends():
            _reset(stream)

    def close(self) -> None:
        """Both ends, which still get what was handed on."""
        for stream in self._ends():
            stream.socket.close()

    def _ends(self) -> list[trio.SocketStream]:
        return [stream for stream in (self._dialler, self._listener) if stream is not None]


def _reset(stream: trio.SocketStream) -> None:
    if stream.socket.fileno() >= 0:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        stream.socket.close()
