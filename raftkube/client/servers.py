"""Which of several API servers a client talks to: one at a time, another when that one fails."""

from __future__ import annotations

from collections.abc import Sequence

from raftkube.client.transport import Transport


class Servers:
    """The servers of one cluster and the one in use, shared by all that is derived from one client.

    A failure moves everybody on, once: whoever reports a server that is no longer the current one
    changes nothing.
    """

    def __init__(self, transports: Sequence[Transport], *, first: int = 0) -> None:
        assert transports, "a client needs a server"
        self._transports = tuple(transports)
        self._current = first % len(self._transports)
        self._heard_at = [float("-inf")] * len(self._transports)

    def __len__(self) -> int:
        return len(self._transports)

    def current(self) -> int:
        """The number of the server in use."""
        return self._current

    def transport(self, server: int) -> Transport:
        return self._transports[server]

    def failed(self, server: int) -> None:
        """`server` did not answer (well): use the next one."""
        if server == self._current:
            self._current = (server + 1) % len(self._transports)

    def heard(self, server: int, now: float) -> None:
        """`server` answered something at `now` (monotonic seconds)."""
        self._heard_at[server] = now

    def silent_for(self, server: int, now: float) -> float:
        """Seconds since `server` last answered anything."""
        return now - self._heard_at[server]
