"""Compaction by history window: the leader forgets old revisions, so that memory stays bounded."""

from __future__ import annotations

from collections import deque

from raftkube.store.server.settings import ServerSettings


class HistoryWindow:
    """Remembers when which revision was current and says up to where to compact.

    A new leader has seen no time pass yet, so it keeps history longer rather than shorter.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._seen: deque[tuple[float, int]] = deque()  # (time, revision), rising

    def clear(self) -> None:
        """Start anew: this member has just become leader."""
        self._seen.clear()

    def target(self, now: float, revision: int) -> int:
        """Note that `revision` is current at `now`; the revision to compact at, 0 for none."""
        settings = self._settings
        if not self._seen or self._seen[-1][1] != revision:
            self._seen.append((now, revision))
        target = 0
        if settings.history_s:
            while len(self._seen) > 1 and self._seen[1][0] <= now - settings.history_s:
                self._seen.popleft()
            if self._seen[0][0] <= now - settings.history_s:
                target = self._seen[0][1]
        if settings.history_revisions_max:
            target = max(target, revision - settings.history_revisions_max)
        return max(0, min(target, revision))
