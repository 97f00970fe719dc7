"""Reads the pixels of a PNG as browsers write it, 8 bits a channel, not interlaced; writes a smaller one."""

from __future__ import annotations

import struct
import zlib
from itertools import accumulate
from pathlib import Path
from typing import Final

Pixel = tuple[int, int, int]

COLOURS_MAX: Final = 256
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


class Picture:
    """`at(x, y)` is the colour of a pixel."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        assert data.startswith(_SIGNATURE), "no PNG"
        header, packed, palette, place = b"", b"", b"", 8
        while place < len(data):
            (length,), kind = struct.unpack_from(">I", data, place), data[place + 4 : place + 8]
            body = data[place + 8 : place + 8 + length]
            header = body if kind == b"IHDR" else header
            packed += body if kind == b"IDAT" else b""
            palette = body if kind == b"PLTE" else palette
            place += length + 12
        self.width, self.height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
        assert (depth, interlace) == (8, 0), "not as browsers write it"
        self._channels = {2: 3, 3: 1, 6: 4}[colour]
        self._palette = [(palette[at], palette[at + 1], palette[at + 2]) for at in range(0, len(palette), 3)]
        self._rows = self._unfilter(zlib.decompress(packed))

    def at(self, x: float, y: float) -> Pixel:
        row, left = self._rows[int(y)], int(x) * self._channels
        if self._palette:
            return self._palette[row[left]]
        return row[left], row[left + 1], row[left + 2]

    def colours(self, x: float, y: float, width: float, height: float) -> dict[Pixel, int]:
        """How many pixels of each colour lie in a box."""
        found: dict[Pixel, int] = {}
        for row in range(max(int(y), 0), min(int(y + height), self.height)):
            for column in range(max(int(x), 0), min(int(x + width), self.width)):
                pixel = self.at(column, row)
                found[pixel] = found.get(pixel, 0) + 1
        return found

    def _unfilter(self, data: bytes) -> list[bytearray]:
        """PNG (third edition) 9.2."""
        size, step = self.width * self._channels, self._channels
        rows, above = [], bytearray(size)
        for number in range(self.height):
            start = number * (size + 1)
            row = bytearray(data[start + 1 : start + 1 + size])
            _add(data[start], row, above, step)
            rows.append(row)
            above = row
        return rows


def save_small(picture: Picture, path: Path) -> None:
    """Write it with the 256 colours that are most frequent; each other one becomes the nearest of these."""
    everything = picture.colours(0, 0, picture.width, picture.height)
    palette = sorted(everything, key=lambda colour: (-everything[colour], colour))[:COLOURS_MAX]
    index = {colour: _nearest(palette, colour) for colour in everything}
    rows = b"".join(
        b"\0" + bytes(index[picture.at(x, y)] for x in range(picture.width)) for y in range(picture.height)
    )
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 3, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"PLTE", b"".join(map(bytes, palette))),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    path.write_bytes(_SIGNATURE + b"".join(_chunk(*part) for part in parts))


def _nearest(palette: list[Pixel], colour: Pixel) -> int:
    def away(place: int) -> int:
        return sum((one - other) ** 2 for one, other in zip(palette[place], colour, strict=True))

    return min(range(len(palette)), key=away)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _add(kind: int, row: bytearray, above: bytearray, step: int) -> None:
    if kind == 0:
        return
    if kind == 1:
        for channel in range(step):
            row[channel::step] = bytes(accumulate(row[channel::step], lambda a, b: (a + b) & 255))
        return
    if kind == 2:
        row[:] = bytes([(here + up) & 255 for here, up in zip(row, above, strict=True)])
        return
    for place in range(len(row)):
        left = row[place - step] if place >= step else 0
        corner = above[place - step] if place >= step else 0
        up = above[place]
        guess = (left + up) // 2 if kind == 3 else _paeth(left, up, corner)
        row[place] = (row[place] + guess) & 255


def _paeth(left: int, up: int, corner: int) -> int:
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner
