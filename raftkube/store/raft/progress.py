"""What the leader remembers of each follower beside pysyncobj's next and match index."""

from __future__ import annotations

from typing import Final

_REPEAT_S: Final = 1.0  # a lost resend is noticed by then at the latest


class Progress:
    """Resets that were obeyed, and snapshots on their way."""

    def __init__(self) -> None:
        self._obeyed: dict[str, tuple[int, float]] = {}
        self._installing: set[str] = set()

    def obey_reset(self, name: str, next_index: int, now: float) -> bool:
        """Should the leader go back to `next_index`?

        Not twice in a row to the same entry: on a connection in order the repeats answer messages that
        left before the resend, and each would send the whole tail again.
        """
        obeyed = self._obeyed.get(name)
        if obeyed is not None and obeyed[0] == next_index and now - obeyed[1] < _REPEAT_S:
            return False
        self._obeyed[name] = (next_index, now)
        return True

    def advanced(self, name: str) -> None:
        """`name` accepted an append."""
        self._obeyed.pop(name, None)

    def forget_resets(self, name: str) -> None:
        """A new connection: what was sent before may be lost."""
        self._obeyed.pop(name, None)

    def installing(self, name: str) -> bool:
        """True while a snapshot is on its way to `name`."""
        return name in self._installing

    def stop_installing(self) -> None:
        """This member leads no more."""
        self._installing.clear()

    def set_installing(self, name: str, on: bool) -> None:
        """A snapshot's way to `name` begins or ends."""
        (self._installing.add if on else self._installing.discard)(name)
