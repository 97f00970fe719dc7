"""Sessions of numbered writes: each write is applied once, however often its client sends it.

A session holds the results of the writes whose answers its client may not have seen yet: those from
`acknowledged_below` on, at most SESSION_WINDOW of them and SESSION_RESULTS_BYTES_MAX bytes. A result that
had to go leaves its number behind, so that its write is still known to have been applied.

There is no clock here: a session ends when its client or the leader has it closed (SessionClose).

Theory: D. Ongaro, Consensus: Bridging Theory and Practice (2014), section 6.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgpack

from raftkube.errors import InvalidRequest, Overloaded, SessionUnknown, StoreError, from_wire
from raftkube.limits import SESSION_RESULTS_BYTES_MAX, SESSION_WINDOW, SESSIONS_MAX
from raftkube.wire.store import Once, Result, result_from_wire, result_to_wire

_ERROR: Final = 0  # where a result has its number, which is above it
_FORGOTTEN: Final = b""


class SessionView(NamedTuple):
    """What whoever closes sessions needs to know."""

    session: int
    highest: int


class SessionCopy(NamedTuple):
    """A session as a snapshot holds it; `results` are (sequence, packed result), as they were applied."""

    session: int
    acknowledged_below: int
    highest: int
    results: tuple[tuple[int, bytes], ...]


class Session:
    """The writes of one client. `highest` is the highest sequence that was applied."""

    __slots__ = ("acknowledged_below", "highest", "results", "results_bytes")

    def __init__(self, acknowledged_below: int = 1, highest: int = 0) -> None:
        self.acknowledged_below = acknowledged_below
        self.highest = highest
        self.results: dict[int, bytes] = {}  # by sequence, packed; in the order of their application
        self.results_bytes = 0

    def acknowledge(self, below: int) -> None:
        """The client has what it wants of the sequences below `below`."""
        begin = self.acknowledged_below
        if below > begin:
            self.acknowledged_below = below
            for sequence in range(begin, min(below, begin + SESSION_WINDOW)):
                self.results_bytes -= len(self.results.pop(sequence, _FORGOTTEN))

    def keep(self, sequence: int, packed: bytes) -> None:
        """Hold the result of a write; the ones held longest are forgotten if there is no room."""
        self.highest = max(self.highest, sequence)
        if len(packed) > SESSION_RESULTS_BYTES_MAX:
            packed = _FORGOTTEN
        self.results[sequence] = packed
        self.results_bytes += len(packed)
        if self.results_bytes > SESSION_RESULTS_BYTES_MAX:
            self._make_room()

    def _make_room(self) -> None:
        for sequence, packed in self.results.items():
            self.results[sequence] = _FORGOTTEN
            self.results_bytes -= len(packed)
            if self.results_bytes <= SESSION_RESULTS_BYTES_MAX:
                return


class SessionTable:
    """The sessions by id, the least recently used first: that is the one to close if there are too many."""

    __slots__ = ("_sessions",)

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, session: int) -> None:
        """Raises InvalidRequest: it has no id, or another's; Overloaded: there are too many."""
        if not session:
            raise InvalidRequest("a session needs an id before it is proposed", field="session")
        if session in self._sessions:
            raise InvalidRequest(f"session {session} exists already", field="session")
        if len(self._sessions) >= SESSIONS_MAX:
            raise Overloaded(f"there are {SESSIONS_MAX} sessions; some are closed soon", retry_after_s=1.0)
        self._sessions[session] = Session()

    def close(self, session: int, highest: int) -> bool:
        """Forget it, unless `highest` is not negative and a sequence above it was applied: then True."""
        held = self._sessions.get(session)
        if held is not None and 0 <= highest < held.highest:
            return True
        self._sessions.pop(session, None)
        return False

    def holds(self, op: Once) -> bool:
        """Whether `op` would be answered from what the session holds, or not at all: not applied."""
        session = self._sessions.get(op.session)
        return session is None or op.sequence < session.acknowledged_below or op.sequence in session.results

    def recall(self, op: Once) -> Result | StoreError | None:
        """The result that the write had; None if it has not been applied: then `keep` must follow.

        Raises SessionUnknown, and InvalidRequest: its sequence lies beyond the window.
        """
        session = self._sessions.pop(op.session, None)
        if session is None:
            raise _unknown(op, "the store knows no session {session}")
        self._sessions[op.session] = session  # the most recently used is the last
        session.acknowledge(op.acknowledged_below)
        if op.sequence < session.acknowledged_below:
            raise _unknown(op, "the client of session {session} has acknowledged write {sequence}")
        packed = session.results.get(op.sequence)
        if packed == _FORGOTTEN:
            raise _unknown(op, "write {sequence} of session {session} was applied; its result is not held")
        if packed is None and op.sequence >= session.acknowledged_below + SESSION_WINDOW:
            raise InvalidRequest(
                f"sequence {op.sequence} lies more than {SESSION_WINDOW} above the acknowledged ones",
                field="sequence",
            )
        return None if packed is None else _unpack(packed)

    def keep(self, op: Once, result: Result | StoreError) -> None:
        """Hold what the write answered."""
        self._sessions[op.session].keep(op.sequence, _pack(result))

    def oldest(self, count: int) -> list[SessionView]:
        """Up to so many, those first that were not used for longest."""
        views = (SessionView(session, held.highest) for session, held in self._sessions.items())
        return [view for view, _ in zip(views, range(count), strict=False)]

    def copies(self) -> Iterator[SessionCopy]:
        """Every session, the least recently used first."""
        for session, held in self._sessions.items():
            results = tuple(held.results.items())
            yield SessionCopy(session, held.acknowledged_below, held.highest, results)

    def load(self, copy: SessionCopy) -> None:
        """Add a session behind the others."""
        session = self._sessions[copy.session] = Session(copy.acknowledged_below, copy.highest)
        for sequence, packed in copy.results:
            session.results[sequence] = packed
            session.results_bytes += len(packed)


def _unknown(op: Once, sentence: str) -> SessionUnknown:
    fields = {"session": op.session, "sequence": op.sequence}
    return SessionUnknown(sentence.format(**fields), **fields)


def _pack(result: Result | StoreError) -> bytes:
    wire = [_ERROR, *result.to_wire()] if isinstance(result, StoreError) else result_to_wire(result)
    packed: bytes = msgpack.packb(wire)
    return packed


def _unpack(packed: bytes) -> Result | StoreError:
    wire = msgpack.unpackb(packed)
    return from_wire(wire[1:]) if wire[0] == _ERROR else result_from_wire(wire)
