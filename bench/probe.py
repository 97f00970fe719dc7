"""One careful client that asks a member single questions, for benches that break things."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from bench.errors import Violation
from bench.kv import Answer, make_kv
from bench.loop import Connection, Endpoint, Loop

_POLL_S: Final = 0.02


class Probe:
    """A connection to one member. What breaks it is for the caller: ConnectionError, OSError."""

    def __init__(self, protocol: str, endpoint: Endpoint) -> None:
        self._session = make_kv(protocol)
        self._answers: dict[int, Answer] = {}
        self._sent = 0
        self.connection = Connection(endpoint, self._on_data)
        self.connection.send(self._session.hello())

    def put(self, key: bytes, value: bytes) -> int:
        """Send one; its number."""
        self.connection.send(self._session.put(key, value))
        self._sent += 1
        return self._sent - 1

    def get(self, key: bytes) -> int:
        """Send one; its number."""
        self.connection.send(self._session.get(key))
        self._sent += 1
        return self._sent - 1

    def take(self) -> dict[int, Answer]:
        """What was answered since the last call, refusals included."""
        answers, self._answers = self._answers, {}
        return answers

    def _on_data(self, data: bytes) -> bytes:
        out, answers = self._session.feed(data)
        self._answers |= {answer.number: answer for answer in answers}
        return out


def first_answer(protocol: str, endpoint: Endpoint, key: bytes, *, timeout_s: float) -> Answer:
    """The answer of this member to a linearizable get, as soon as it gives one; connects anew until then.

    Raises Violation: none within `timeout_s`.
    """
    deadline = time.perf_counter() + timeout_s
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError):
            answer = _ask_once(protocol, endpoint, key)
            if answer is not None and not answer.error:
                return answer
        time.sleep(_POLL_S)
    raise Violation(f"{endpoint.host}:{endpoint.port} served no read within {timeout_s:g} s")


def _ask_once(protocol: str, endpoint: Endpoint, key: bytes, wait_s: float = 2.0) -> Answer | None:
    loop, probe = Loop(), Probe(protocol, endpoint)
    loop.add(probe.connection)
    try:
        number = probe.get(key)
        deadline = time.perf_counter() + wait_s
        while time.perf_counter() < deadline:
            loop.turn(_POLL_S)
            if found := probe.take().get(number):
                return found
        return None
    finally:
        loop.close()
