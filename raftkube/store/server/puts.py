"""Puts that arrive together are checked, proposed and answered together."""

from __future__ import annotations

from typing import Any, Final

from raftkube.store.core import is_plain_put
from raftkube.wire import rpc

# A larger one begins a group of its own, so that any group fits a log entry.
PUT_BYTES_ALONE: Final = 4096
_TOGETHER_MAX: Final = 500
_NEVER_MS: Final = float("inf")


class Puts:
    """Requests in a row that put: their ids, what they put, and the milliseconds that they may wait."""

    __slots__ = ("deadlines_ms", "ids", "wires")

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.wires: list[Any] = []
        self.deadlines_ms: list[float] = []

    def add(self, request_id: int, method: str, arguments: list[Any], deadline_ms: int) -> None:
        """A request for which `is_put_request` holds."""
        self.ids.append(request_id)
        self.wires.append(arguments[0])
        self.deadlines_ms.append(deadline_ms or _NEVER_MS)

    @property
    def full(self) -> bool:
        """No more belong together."""
        return len(self.ids) >= _TOGETHER_MAX

    def split(self, waited_ms: float) -> tuple[Puts, list[int]]:
        """Those that may still be proposed, and the ids of the others."""
        kept, expired = Puts(), []
        for request_id, wire, deadline_ms in zip(self.ids, self.wires, self.deadlines_ms, strict=True):
            if deadline_ms <= waited_ms:
                expired.append(request_id)
            else:
                kept.ids.append(request_id)
                kept.wires.append(wire)
                kept.deadlines_ms.append(deadline_ms)
        return kept, expired


def is_put_request(message: Any) -> bool:
    """Whether `message` is a well-formed request for one plain put; what else it may be is looked at
    elsewhere."""
    if type(message) is not list or len(message) != 4:
        return False
    request_id, method, arguments, deadline_ms = message
    return (
        method == rpc.OP
        and type(request_id) is int
        and type(deadline_ms) is int
        and deadline_ms >= 0
        and type(arguments) is list
        and len(arguments) == 1
        and is_plain_put(arguments[0])
    )
