"""Protobuf's wire format: bytes into (field number, wire type, value).

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

_WIDTHS = {FIXED64: 8, FIXED32: 4}


class ProtobufError(ValueError):
    """The bytes are not what they claim to be: one sentence that says where."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position after it) of the varint at `at`; the value is below 2**64."""
    value = shift = 0
    for position in range(at, min(at + 10, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + 1
        shift += 7
    raise ProtobufError(f"a number at byte {at} does not end")


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Every field of one message, in order: numbers as ints, the other wire types as bytes.

    Raises ProtobufError: the bytes are cut short, or hold a wire type that Kubernetes never uses.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise ProtobufError(f"field number 0 before byte {at}")
        if wire_type == VARINT:
            value, at = varint(data, at)
            yield number, wire_type, value
            continue
        width = _WIDTHS.get(wire_type)
        if wire_type == BYTES:
            width, at = varint(data, at)
        if width is None:
            raise ProtobufError(f"wire type {wire_type} of field {number} is not supported")
        if width > end - at:
            raise ProtobufError(f"field {number} needs {width} bytes and {end - at} are left")
        yield number, wire_type, data[at : at + width]
        at += width


def signed(value: int, bits: int) -> int:
    """A varint as an int32 or int64: two's complement, truncated as the reference decoders do."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
