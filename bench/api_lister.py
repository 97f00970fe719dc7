"""Lists pods again and again over one connection, whole or in pages, and checks each list as a whole.

The time that counts runs from a request's first byte to its answer's last; the checks do not count.
"""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from typing import Any, Final

import orjson

from bench import api_pods
from bench.api_cluster import client_context, process_usage
from bench.api_http import get, parse_head
from bench.api_process import Orders, cpu_s, report
from bench.errors import Violation
from bench.loop import Endpoint

_ROOM: Final = 1 << 20


def run(job: dict[str, Any], orders: Orders) -> None:
    """`job`: endpoint, pid (the server's), pods (how many), limit (0: whole), seconds, repeats_min, check,
    keep (a file for the last answer's body, or "")."""
    client = _Client(Endpoint(**job["endpoint"]))
    check = _Check(job["pods"]) if job["check"] else None
    client.ask(_path(0, ""))  # a warm-up: encodes every object once
    report(state="ready")
    orders.wait()
    took: list[float] = []
    sizes: list[int] = []
    asked: list[tuple[int, int]] = []
    pages = 0
    cpu_before, server_cpu_s = cpu_s(), 0.0
    end = time.monotonic() + job["seconds"]
    while time.monotonic() < end or len(took) < job["repeats_min"]:
        parts, token = [], ""
        before = time.monotonic_ns()
        waited = 0.0
        while True:
            server_before, started = process_usage(job["pid"])["cpu_s"], time.perf_counter()
            body = client.ask(_path(job["limit"], token))
            waited += time.perf_counter() - started
            server_cpu_s += process_usage(job["pid"])["cpu_s"] - server_before
            parts.append(bytes(body))
            pages += 1
            token = _continue(body) if job["limit"] and check else ""
            if not token:
                break
        took.append(waited)
        sizes.append(sum(map(len, parts)))
        if check is not None:
            asked.append((before, check.list(parts)))
    if job["keep"]:
        Path(job["keep"]).write_bytes(parts[-1])
    report(
        took_s=took, server_cpu_s=server_cpu_s, bytes=sizes, pages=pages, asked=asked,
        generator_cpu_s=round(cpu_s() - cpu_before, 2),
        verified=0 if check is None else check.seen,
    )  # fmt: skip


def _path(limit: int, token: str) -> str:
    return "/api/v1/pods" + (f"?limit={limit}" if limit else "") + (f"&continue={token}" if token else "")


def _continue(body: memoryview) -> str:
    metadata = orjson.loads(body)["metadata"]
    return str(metadata.get("continue", ""))


class _Client:
    """One connection; an answer is read into one buffer that stays."""

    def __init__(self, endpoint: Endpoint) -> None:
        sock = socket.create_connection((endpoint.host, endpoint.port), timeout=60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls: ssl.SSLSocket = client_context(endpoint).wrap_socket(sock, server_hostname=endpoint.host)
        self._buffer = bytearray(_ROOM)

    def ask(self, path: str) -> memoryview:
        """The body of the answer, valid until the next one. Raises Violation: it is not 200."""
        self._tls.sendall(get(path))
        filled = body_at = 0
        while not body_at:
            filled += self._read(filled)
            body_at = self._buffer.find(b"\r\n\r\n", 0, filled) + 4
            body_at = 0 if body_at == 3 else body_at
        status, length = parse_head(bytes(self._buffer[:body_at]))
        end = body_at + length
        if len(self._buffer) < end:
            self._buffer += bytes(end + _ROOM - len(self._buffer))
        while filled < end:
            filled += self._read(filled)
        body = memoryview(self._buffer)[body_at:end]
        if status != 200:
            raise Violation(f"GET {path} was answered {status}: {bytes(body[:200]).decode()}")
        return body

    def _read(self, at: int) -> int:
        with memoryview(self._buffer) as view:
            got = self._tls.recv_into(view[at:])
        if not got:
            raise Violation("the server closed the connection")
        return got


class _Check:
    """What a list must hold: every pod once, in order, and none older than an earlier list had it."""

    def __init__(self, pods: int) -> None:
        self._pods = pods
        self._newest: dict[str, int] = {}
        self.seen = 0

    def list(self, parts: list[bytes]) -> int:
        """One list in its pages; the revision that it is of. Raises Violation."""
        names: list[tuple[str, str]] = []
        revisions = set()
        for part in parts:
            told = orjson.loads(part)
            revisions.add(told["metadata"]["resourceVersion"])
            for item in told["items"]:
                names.append((item["metadata"]["namespace"], item["metadata"]["name"]))
                self._one(item, int(told["metadata"]["resourceVersion"]))
        if len(names) != self._pods or len(set(names)) != self._pods or names != sorted(names):
            raise Violation(
                f"a list held {len(names)} pods, {len(set(names))} different ones, of {self._pods}"
            )
        if len(revisions) != 1:
            raise Violation(f"the pages of one list are of the revisions {sorted(revisions)}")
        return int(revisions.pop())

    def _one(self, item: dict[str, Any], revision: int) -> None:
        metadata = item["metadata"]
        name, at = metadata["name"], int(metadata["resourceVersion"])
        api_pods.read_mark(metadata["annotations"][api_pods.MARK])
        if at > revision:
            raise Violation(f"{name} at {at} is in a list of revision {revision}")
        if at < self._newest.get(name, 0):
            raise Violation(f"{name} went back from revision {self._newest[name]} to {at}")
        self._newest[name] = at
        self.seen += 1
