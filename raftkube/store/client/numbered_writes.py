"""Writes that take effect once, however often they have to be sent: numbered in a session of the store.

A write that got an indefinite error is sent again under its number until its caller's deadline; the store
answers with what it answered the first time. The session is opened by the first write, and again when the
store has closed it: then a write that may have been applied in the old one keeps its doubt
(SessionUnknown), and one that was never sent before is sent in the new one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from raftkube.errors import DeadlineExpired, PermissionDenied, SessionUnknown, StoreError, Unsupported
from raftkube.limits import SESSION_WINDOW
from raftkube.wire.store import Once, Op, SessionClose, SessionOpen, op_to_wire, result_from_wire

# Sends an operation until it is answered; indefinite errors on the way are added to the list.
Send = Callable[[list[Any], list[StoreError]], Awaitable[Any]]
_CLOSE_S: Final = 1.0
# What refuses a sending before the log, definite for that one alone: it says nothing of those before it.
_REFUSALS: Final = (DeadlineExpired, PermissionDenied, Unsupported)


class _Session:
    """`waiting`: the sequences without an answer, rising; all below them are acknowledged."""

    def __init__(self, session: int) -> None:
        self.id = session
        self.next = 1
        self.waiting: OrderedDict[int, None] = OrderedDict()

    @property
    def acknowledged_below(self) -> int:
        return next(iter(self.waiting), self.next)

    @property
    def full(self) -> bool:
        """The store would refuse the next sequence."""
        return self.next - self.acknowledged_below >= SESSION_WINDOW


class NumberedWrites:
    """The writes of one client; any number of tasks may call `write`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._session: _Session | None = None
        self._opening = trio.Lock()
        self._room = trio.Event()

    async def write(self, op: Op) -> Any:
        """The result of `op`, in the form of the wire. Raises StoreError; SessionUnknown, indefinite, if it
        was sent before and the store does not know any more what came of it; the indefinite error that it
        got before if it cannot be sent again."""
        while True:
            session = await self._session_with_room()
            doubts: list[StoreError] = []
            sequence, session.next = session.next, session.next + 1
            session.waiting[sequence] = None
            once = Once(session.id, sequence, session.acknowledged_below, op)
            try:
                return await self._send(op_to_wire(once), doubts)
            except SessionUnknown:
                if self._session is session:
                    self._session = None
                if doubts:
                    raise
            except _REFUSALS as error:
                if doubts:
                    raise doubts[-1] from error
                raise
            finally:
                del session.waiting[sequence]
                self._room.set()

    async def close(self) -> None:
        """Have the store forget the session, if it can be told soon; else it will do so by itself."""
        session, self._session = self._session, None
        if session is not None:
            with trio.move_on_after(_CLOSE_S):
                try:
                    await self._send(op_to_wire(SessionClose(session.id)), [])
                except StoreError:
                    pass  # the leader closes what is not used when there are too many

    async def _session_with_room(self) -> _Session:
        while True:
            session = self._session or await self._open()
            if not session.full:
                return session
            if self._room.is_set():
                self._room = trio.Event()
            await self._room.wait()

    async def _open(self) -> _Session:
        async with self._opening:
            if self._session is None:
                opened = result_from_wire(await self._send(op_to_wire(SessionOpen()), []))
                self._session = _Session(opened.session)  # type: ignore[union-attr]
            return self._session
