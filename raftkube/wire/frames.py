"""Frames: a big-endian u32 length, then that many bytes of msgpack.

A length of zero or above the limit is an error of the other end: the connection is closed, nothing of
the frame is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgpack

from raftkube.errors import RaftkubeError
from raftkube.limits import FRAME_BYTES_MAX

_LENGTH = struct.Struct(">I")
_packer = msgpack.Packer(use_bin_type=True)


class FrameError(RaftkubeError):
    """The other end does not speak this protocol; close the connection."""

    code = "frame_error"


def pack(message: Any) -> bytes:
    """The msgpack body of `message` (bytes stay bytes, str stays str)."""
    return msgpack.packb(message, use_bin_type=True)  # type: ignore[no-any-return]


def pack_small(message: Any) -> bytes:
    """As `pack`, at a third of the price, for messages of a few MiB at most: the buffer is kept."""
    return _packer.pack(message)  # type: ignore[no-any-return]


def unpack(body: bytes | memoryview) -> Any:
    """The message of `body`. Raises FrameError: not msgpack, nested too deeply, or a map with keys that
    cannot be keys."""
    try:
        return msgpack.unpackb(body, raw=False, strict_map_key=False, use_list=True)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise FrameError(f"not a msgpack message: {type(error).__name__}") from error


def frame(message: Any) -> bytes:
    """`message` with its length in front, ready to send."""
    body = pack(message)
    return _LENGTH.pack(len(body)) + body


def frame_body(body: bytes) -> bytes:
    """An already packed body with its length in front."""
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into bodies: `feed` what arrived, iterate over what is complete."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()  # the beginning of a frame
        self._wanted = 4  # so many bytes make it whole, or say how many do
        self._frame_bytes_max = frame_bytes_max

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that `data` completes, in order. Raises FrameError: a length out of bounds."""
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._wanted:
                return  # a long frame is looked at once, not with each of its pieces
            data = bytes(buffer)
            buffer.clear()
        offset, size, self._wanted = 0, len(data), 4
        try:
            while size - offset >= 4:
                (length,) = _LENGTH.unpack_from(data, offset)
                if not 0 < length <= self._frame_bytes_max:
                    raise FrameError(f"frame length {length} is not in 1..{self._frame_bytes_max}")
                begin, end = offset + 4, offset + 4 + length
                if size < end:
                    self._wanted = end - offset
                    break
                offset = end
                yield data[begin:end]
        finally:
            buffer += data[offset:]
