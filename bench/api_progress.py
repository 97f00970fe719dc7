"""How far the watchers of each process are, in a file that the writer's process has mapped, too."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

_SLOT: Final = struct.Struct("<q")


class Progress:
    """One number a process: the events that all of its watchers have."""

    def __init__(self, path: str, slots: int) -> None:
        """`path` as `create` left it."""
        self._slots = slots
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), slots * _SLOT.size)

    @classmethod
    def create(cls, path: Path, slots: int) -> None:
        """A file with every slot at 0."""
        path.write_bytes(bytes(slots * _SLOT.size))

    def set(self, slot: int, events: int) -> None:
        """Of one's own slot."""
        _SLOT.pack_into(self._map, slot * _SLOT.size, events)

    def slowest(self) -> int:
        """The least of all."""
        return min(int(_SLOT.unpack_from(self._map, slot * _SLOT.size)[0]) for slot in range(self._slots))
