"""raftkube's store protocol for the generator: pre-packed requests, answers cut by length alone."""

from __future__ import annotations

import struct
from typing import Final

import msgpack

from raftkube.wire import rpc

PREFIX: Final = b"/bench/"
_LENGTH: Final = struct.Struct(">I")


class Frames:
    """Cuts the stream; the member's hello comes first and is dropped."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._greeted = False

    def cut(self, data: bytes) -> list[bytes]:
        buffer = self._buffer
        buffer += data
        offset, end, bodies = 0, len(buffer), []
        while end - offset >= 4:
            (length,) = _LENGTH.unpack_from(buffer, offset)
            if end - offset - 4 < length:
                break
            bodies.append(bytes(buffer[offset + 4 : offset + 4 + length]))
            offset += 4 + length
        del buffer[:offset]
        if bodies and not self._greeted:
            self._greeted = True
            rpc.parse_member_hello(msgpack.unpackb(bodies.pop(0)))
        return bodies
