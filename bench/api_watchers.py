"""Watchers of pods over HTTPS, many in one process, every byte of every one of them compared.

All of them ask for the same, from the same revision on, so all of them must be sent the same bytes. What the
foremost got is kept and read, line by line: that is what the writes are compared with; the others are
compared with it byte by byte.
"""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Any, Final

import orjson

from bench import api_pods
from bench.api_cluster import check_descriptors, client_context
from bench.api_http import FORMS, ChunkedBody, Epoll, TlsClient, get
from bench.api_pods import MARK
from bench.api_process import Orders, cpu_s, report
from bench.api_progress import Progress
from bench.errors import Violation
from bench.loop import Endpoint

_OPENING: Final = 64  # connections that are being made at once
_SETUP_TIMEOUT_S: Final = 120.0
_STALL_S: Final = 30.0
TICKS_PER_S: Final = 100_000  # of the latencies' histogram
_TRIM_BYTES: Final = 1 << 24


def run(job: dict[str, Any], orders: Orders) -> None:
    """`job`: endpoints, watchers, path, form, slot, progress (a file), slots, record (a file, or "")."""
    check_descriptors(job["watchers"] + 100)
    fleet = Fleet(job)
    fleet.open()
    report(state="ready")
    before = cpu_s()
    expected, told_s = -1, 0.0
    while expected < 0 or fleet.slowest() < expected:
        fleet.turn()
        order = orders.poll()
        if order is not None:
            fleet.begin_s, fleet.end_s = order.get("begin_s", fleet.begin_s), order.get("end_s", fleet.end_s)
            expected = order.get("expected", expected)
            told_s = time.monotonic()
        if expected >= 0:
            fleet.check_progress(told_s)
    if job["record"]:
        Path(job["record"]).write_bytes(fleet.recorded())
    report(
        delivered=fleet.delivered, digests=fleet.digests(), lines=fleet.slowest(), bytes=fleet.bytes,
        histogram=list(fleet.took.items()), sizes=fleet.sizes if job["record"] else [],
        first_s=fleet.first_s, last_s=fleet.last_s, generator_cpu_s=round(cpu_s() - before, 3),
        total=fleet.total(),
    )  # fmt: skip


class Stream:
    """What a server sends to each watcher, as far as the foremost has it."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._base = 0  # where `_text` begins in the stream
        self._read = 0  # up to where its lines are known
        self.ends: list[int] = []
        self.sent_s: list[float] = []
        self._digest = hashlib.sha256()
        self._revision = 0

    @property
    def digest(self) -> str:
        """Over (revision, pod, write) of every event, in order."""
        return self._digest.hexdigest()

    def take(self, at: int, data: bytes) -> int:
        """A watcher that was at `at` got `data`; where it is now. Raises Violation: others got others."""
        known = self._base + len(self._text) - at
        if known < len(data):
            if self._text.endswith(data[:known]):
                self._text += data[known:]
                self._read_lines()
                return at + len(data)
        elif self._text.startswith(data, at - self._base):
            return at + len(data)
        raise Violation(f"watchers of the same were sent different bytes behind byte {at}: {data[:200]!r}")

    def kept(self) -> bytes:
        """The part that was not trimmed."""
        return bytes(self._text)

    def trim(self, at: int) -> None:
        """Forget what every watcher has behind it."""
        if at - self._base > _TRIM_BYTES:
            del self._text[: at - self._base]
            self._base = at

    def _read_lines(self) -> None:
        start = self._read - self._base
        end = self._text.rfind(b"\n") + 1
        for line in bytes(self._text[start : max(end, start)]).splitlines(keepends=True):
            self._read += len(line)
            self.ends.append(self._read)
            self._event(line)

    def _event(self, line: bytes) -> None:
        event = orjson.loads(line)
        shown = event["object"]
        if event["type"] != "MODIFIED":
            raise Violation(f"a watcher was sent {line[:300]!r}, nobody did that")
        if "rows" in shown:
            shown = shown["rows"][0]["object"]
        metadata = shown["metadata"]
        revision = int(metadata["resourceVersion"])
        if revision <= self._revision:
            raise Violation(f"revision {revision} came behind {self._revision}")
        self._revision = revision
        sequence, sent_ns = api_pods.read_mark(metadata["annotations"][MARK])
        self.sent_s.append(sent_ns / 1e9)
        self._digest.update(fingerprint(revision, api_pods.number_of(metadata["name"]), sequence))


def fingerprint(revision: int, number: int, sequence: int) -> bytes:
    """One event, for a digest."""
    return b"%d %d %d\n" % (revision, number, sequence)


class Follower:
    """One watcher."""

    def __init__(self, fleet: Fleet, stream: Stream, at: int) -> None:
        self._fleet = fleet
        self._stream = stream
        self._body = ChunkedBody(fleet.sizes if at == 0 and fleet.records else None)
        self.at = 0
        self.lines = 0

    @property
    def begun(self) -> bool:
        return self._body.begun

    def on_data(self, _: TlsClient, data: bytes) -> None:
        if not data:
            raise Violation("the server closed a watcher's connection")
        text = self._body.feed(data)
        if not text:
            return
        self.at = self._stream.take(self.at, text)
        before = self.lines
        self.lines = bisect_right(self._stream.ends, self.at, lo=before)
        self._fleet.note(self._stream.sent_s, before, self.lines, len(data))


class Fleet:
    """All watchers of this process."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self.records = bool(job["record"])
        endpoints = [Endpoint(**endpoint) for endpoint in job["endpoints"]]
        self._streams = [Stream() for _ in endpoints]
        self._targets = [(endpoint, client_context(endpoint)) for endpoint in endpoints]
        self.sizes: list[int] = []
        self._followers = [
            Follower(self, self._streams[at % len(endpoints)], at) for at in range(job["watchers"])
        ]
        self._epoll = Epoll()
        self._progress = Progress(job["progress"], job["slots"])
        self.begin_s = self.end_s = float("inf")
        self.first_s = self.last_s = 0.0
        self._now = 0.0
        self.delivered = 0
        self.bytes = 0
        self.took: Counter[int] = Counter()

    def open(self) -> None:
        """Connect and ask, some at a time. Raises Violation: not all are answered in time."""
        hello = get(self._job["path"], accept=FORMS[self._job["form"]])
        left = list(enumerate(self._followers))[::-1]
        opening: list[Follower] = []
        deadline = time.perf_counter() + _SETUP_TIMEOUT_S
        while left or opening:
            while left and len(opening) < _OPENING:
                at, follower = left.pop()
                endpoint, context = self._targets[at % len(self._targets)]
                self._epoll.add(TlsClient(endpoint, context, hello, follower.on_data))
                opening.append(follower)
            self._epoll.turn(0.5)
            opening = [follower for follower in opening if not follower.begun]
            if time.perf_counter() > deadline:
                raise Violation(f"{len(opening) + len(left)} watches were not answered in time")

    def turn(self) -> None:
        """Take what has come, and say how far all are."""
        self._now = time.monotonic()
        self._epoll.turn(0.05)
        self._progress.set(self._job["slot"], self.slowest())
        if self.records:
            return
        for number, stream in enumerate(self._streams):
            of_it = self._followers[number :: len(self._streams)]
            stream.trim(min((follower.at for follower in of_it), default=0))

    def note(self, sent_s: list[float], first: int, after: int, size: int) -> None:
        """A watcher has got the lines from `first` up to `after`."""
        now = self._now = time.monotonic()
        self.first_s = self.first_s or now
        self.last_s = now
        if self.begin_s <= now < self.end_s:
            self.bytes += size
            self.delivered += after - first
            self.took.update([int((now - at) * TICKS_PER_S) for at in sent_s[first:after]])

    def slowest(self) -> int:
        """The events that every watcher has."""
        return min((follower.lines for follower in self._followers), default=0)

    def total(self) -> int:
        """Events delivered, over all watchers."""
        return sum(follower.lines for follower in self._followers)

    def digests(self) -> list[str]:
        """Of every server's stream that is watched here."""
        return [stream.digest for stream in self._streams[: len(self._followers)]]

    def recorded(self) -> bytes:
        """All that the first watcher got."""
        return self._streams[0].kept()

    def check_progress(self, since_s: float) -> None:
        """Raises Violation: nothing has come for long, nor since then, and something is missing."""
        if time.monotonic() - max(self.last_s, since_s) > _STALL_S:
            raise Violation(f"no event came for {_STALL_S:g} s; {self.slowest()} are with all watchers")
