"""Where messages leave a member: the real connections, or what a test puts in their place."""

from __future__ import annotations

from typing import Protocol

from raftkube.store.raft.messages import Message


class Outlet(Protocol):
    """Never waits, never raises."""

    def send(self, name: str, message: Message) -> None:
        """Hand `message` to the connection to the member `name`; dropped if there is none."""
        ...
