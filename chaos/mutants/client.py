"""Mutants of the client: what it sends again, what it numbers, how it resumes a watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chaos.mutants.mutant import Mutant
from raftkube.errors import ConnectionLost, Indefinite
from raftkube.store.client.client import StoreClient
from raftkube.store.client.connection import MemberConnection, NotSent
from raftkube.store.client.numbered_writes import NumberedWrites
from raftkube.store.client.watch import Watch

Function = Callable[..., Any]


def _send_again(original: Function) -> Function:
    async def call(self: StoreClient, method: str, arguments: list[Any], **options: Any) -> Any:
        return await original(self, method, arguments, **(options | {"write": False}))

    return call


def _lost_is_not_sent(original: Function) -> Function:
    async def call(self: MemberConnection, *arguments: Any) -> Any:
        try:
            return await original(self, *arguments)
        except ConnectionLost as error:
            raise NotSent(error.message) from error

    return call


def _new_number(original: Function) -> Function:
    async def write(self: NumberedWrites, op: Any) -> Any:
        send, tries = self._send, 0

        async def send_once(wire: list[Any], doubts: list[Any]) -> Any:
            found = await send(wire, doubts)
            if doubts:
                raise doubts[-1]
            return found

        while True:
            tries += 1
            self._send = send_once
            try:
                return await original(self, op)
            except Indefinite:
                if tries > 3:
                    raise
            finally:
                self._send = send

    return write


def _resume_after(later: int) -> Callable[[Function], Function]:
    def wrap(original: Function) -> Function:
        def on_lost(self: Watch) -> None:
            self._next = max(1, self._next + later)
            original(self)

        return on_lost

    return wrap


def _forget_the_unread(original: Function) -> Function:
    def on_lost(self: Watch) -> None:
        self._unread.clear()
        self._unread_bytes = 0
        original(self)

    return on_lost


def _resume_shorn(original: Function) -> Function:
    """The first batch after a lost connection comes without its last event."""

    def on_batch(self: Watch, revision: int, events: tuple[Any, ...], size_bytes: int) -> None:
        if self._connection is not None and self._connection._received <= 2 and self._watch_id:
            last = events[-1:] and events[-1].kv.mod_revision
            if len([each for each in events if each.kv.mod_revision == last]) > 1:
                events = events[:-1]
        original(self, revision, events, size_bytes)

    return on_batch


_WATCHES: Final = {"workload": {"watches": 2, "think_s": 0.1, "clients": 3}}
_NUMBERED: Final = {"hosts": 3, "numbered": True}

MUTANTS: Final = (
    Mutant("doubtful-write-repeated", "a write of unknown outcome is sent again, without a number",
           ((StoreClient, "_call", _send_again),), "partition,kill,link"),
    Mutant("lost-taken-for-unsent", "a write whose connection was lost is taken for never sent",
           ((MemberConnection, "call", _lost_is_not_sent),), "link,cut-client"),
    Mutant("retry-renumbered", "a numbered write is sent again under a new number",
           ((NumberedWrites, "write", _new_number),), "link,cut-client,kill", _NUMBERED),
    Mutant("resume-too-late", "a watch that lost its connection goes on one revision too late",
           ((Watch, "on_lost", _resume_after(1)),), "link,kill", _WATCHES),
    Mutant("resume-too-early", "a watch that lost its connection goes on one revision too early",
           ((Watch, "on_lost", _resume_after(-1)),), "link,kill", _WATCHES),
    Mutant("resume-drops-last", "the first batch on a new connection lacks the last event",
           ((Watch, "on_batch", _resume_shorn),), "link,kill", _WATCHES),
    Mutant("unread-forgotten", "what a watch had not delivered yet is forgotten with its connection",
           ((Watch, "on_lost", _forget_the_unread),), "link,kill", _WATCHES,
           doubt="the recorder takes each batch in the turn in which it comes, so nothing is unread"),
)  # fmt: skip
