"""The CRI log format: `<RFC 3339 with nanoseconds> <stdout|stderr> <F|P> <text>`.

F ends a line, P is a part of one. A part is written as it arrives, so nothing of an unfinished line is
held back. Source: k8s.io/design-proposals-archive/node/kubelet-cri-logging.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

LINE_BYTES_MAX: Final = 16_384


class Entry(NamedTuple):
    """One line of a log file. `timestamp` sorts as text; `content` has its newline unless partial."""

    timestamp: bytes
    content: bytes
    partial: bool


def timestamp(wall_s: float) -> str:
    """Nine decimals, in UTC."""
    moment = datetime.fromtimestamp(wall_s, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def encode(stream: str, chunk: bytes, wall_s: float) -> bytes:
    """`chunk` of a stream's bytes as entries."""
    head = f"{timestamp(wall_s)} {stream} ".encode()
    entries = []
    for line in _lines(chunk):
        text, tag = (line[:-1], b"F ") if line.endswith(b"\n") else (line, b"P ")
        while len(text) > LINE_BYTES_MAX:
            entries.append(head + b"P " + text[:LINE_BYTES_MAX] + b"\n")
            text = text[LINE_BYTES_MAX:]
        entries.append(head + tag + text + b"\n")
    return b"".join(entries)


def decode(line: bytes) -> Entry | None:
    """The entry of one line of a log file (without its newline); None if it is none."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[2] not in (b"F", b"P"):
        return None
    partial = parts[2] == b"P"
    return Entry(parts[0], parts[3] if partial else parts[3] + b"\n", partial)


def tail_offset(data: bytes, lines: int) -> int:
    """Where the last `lines` lines begin in a log file's bytes; parts count with the line they end in."""
    if lines <= 0:
        return len(data)
    ends = _lines(data)
    offset, left = len(data), lines + 1
    for position in range(len(ends) - 1, -1, -1):
        entry = decode(ends[position][:-1])
        if position == len(ends) - 1 or (entry is not None and not entry.partial):
            left -= 1
            if left == 0:
                break
        offset -= len(ends[position])
    return offset


def _lines(chunk: bytes) -> Sequence[bytes]:
    """Split after each newline and nowhere else (bytes.splitlines knows carriage returns too)."""
    lines = [line + b"\n" for line in chunk.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines
