"""How long a container that failed waits before it is started again, and an image before it is tried again.

Source: k8s.io/client-go/util/flowcontrol.Backoff and kuberuntime's doBackOff: the first restart is at
once, then 10 s doubling to 5 min, counted from the end of the last attempt; forgotten after an attempt
that ended more than twice the maximum after the last restart.
"""

from __future__ import annotations

from typing import NamedTuple


class Backoff(NamedTuple):
    """The wait before the next restart, and the wall second when it was decided."""

    delay_s: float
    updated_at: float


class BackoffPolicy(NamedTuple):
    base_s: float = 10.0
    max_s: float = 300.0

    def ready_at(self, backoff: Backoff | None, finished_at: float) -> float:
        """The wall second from which a container that ended at `finished_at` may start again."""
        if backoff is None or self._forgotten(backoff, finished_at):
            return finished_at
        return finished_at + backoff.delay_s

    def next(self, backoff: Backoff | None, finished_at: float, now: float) -> Backoff:
        """The backoff after a restart at `now` of what ended at `finished_at`."""
        if backoff is None or self._forgotten(backoff, finished_at):
            return Backoff(self.base_s, now)
        return Backoff(min(backoff.delay_s * 2, self.max_s), now)

    def _forgotten(self, backoff: Backoff, finished_at: float) -> bool:
        return finished_at - backoff.updated_at > 2 * self.max_s


def duration(seconds: float) -> str:
    """As Go prints a duration in messages: 10s, 1m20s, 5m0s."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
