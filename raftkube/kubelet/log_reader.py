"""Container logs as `kubectl logs` asks for them. Only the newest file of a rotated log is read, as upstream;
a follower goes on through rotations.

Source: k8s.io/cri-client/pkg/logs.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from io import FileIO
from typing import Final, NamedTuple

import trio

from raftkube.api.status import bad_request
from raftkube.api.timestamps import seconds
from raftkube.kubelet.core.log_format import Entry, decode, tail_offset, timestamp
from raftkube.kubelet.runtimes.base import LogSource

_READ_BYTES: Final = 262_144
Send = Callable[[bytes], Awaitable[None]]


class LogOptions(NamedTuple):
    """`since` is a CRI timestamp; None means not limited."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: str | None = None


def log_options(query: Mapping[str, str], now: float) -> LogOptions:
    """From the query of a request. Raises ApiError (400) naming the parameter that is wrong."""
    since = None
    if (text := query.get("sinceSeconds")) is not None:
        since = timestamp(now - _whole("sinceSeconds", text, least=1))
    elif text := query.get("sinceTime"):
        try:
            since = timestamp(seconds(text))
        except ValueError as error:
            raise bad_request(f"sinceTime: {text!r} is not an RFC 3339 time") from error
    tail, limit = query.get("tailLines"), query.get("limitBytes")
    return LogOptions(
        follow=_flag(query, "follow"),
        previous=_flag(query, "previous"),
        timestamps=_flag(query, "timestamps"),
        tail_lines=None if tail is None else _whole("tailLines", tail, least=0),
        limit_bytes=None if limit is None else _whole("limitBytes", limit, least=1),
        since=since,
    )


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "false").lower() not in ("false", "0")


def _whole(name: str, text: str, *, least: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise bad_request(f"{name}: Invalid value: {text!r}: must be a whole number of at least {least}")
    return int(text)


async def send_log(source: LogSource, options: LogOptions, send: Send) -> None:
    """Send what is in the log; with `follow`, what comes until the container has ended."""
    output = _Output(options)
    file = _open(source.path)
    try:
        if file is not None:
            _skip_to_tail(file, options)
        while True:
            ended = source.ended  # asked before reading: what is read after it is all there is
            if file is None:
                file = _open(source.path)
            if file is not None:
                await _send_rest(file, output, send)
            if output.full or ((ended or not options.follow) and not _was_rotated(source.path, file)):
                return
            if _was_rotated(source.path, file):
                assert file is not None
                file.close()
                file = None
            elif not source.ended:
                await source.wait_change()
    finally:
        if file is not None:
            file.close()


async def _send_rest(file: FileIO, output: _Output, send: Send) -> None:
    while chunk := file.read(_READ_BYTES):
        text = output.take(chunk)
        if text:
            await send(text)
        else:
            await trio.lowlevel.checkpoint()
        if output.full:
            return


def _open(path: str) -> FileIO | None:
    try:
        return FileIO(path)
    except FileNotFoundError:
        return None


def _skip_to_tail(file: FileIO, options: LogOptions) -> None:
    if options.tail_lines is not None:
        file.seek(tail_offset(file.readall(), options.tail_lines))


def _was_rotated(path: str, file: FileIO | None) -> bool:
    """Whether `path` is another file by now than the one that is open."""
    if file is None:
        return False
    try:
        return os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


class _Output:
    """Entries to text, by the options."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit_bytes
        self._since = None if options.since is None else options.since.encode()
        self._rest = b""
        self._inside_line = False

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self._left == 0

    def take(self, chunk: bytes) -> bytes:
        """The text of the entries that end in `chunk`."""
        text = b"".join(self._text(entry) for entry in self._entries(chunk))
        if self._left is not None:
            text = text[: self._left]
            self._left -= len(text)
        return text

    def _entries(self, chunk: bytes) -> Iterator[Entry]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            entry = decode(line)
            if entry is not None and (self._since is None or entry.timestamp >= self._since):
                yield entry

    def _text(self, entry: Entry) -> bytes:
        stamp = b"" if self._inside_line or not self._options.timestamps else entry.timestamp + b" "
        self._inside_line = entry.partial
        return stamp + entry.content
