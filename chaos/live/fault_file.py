"""What the harness asks of one store member's doors: a small JSON file beside the cluster's data, written by
the harness and read by the member's process before each step of its disk and each look at its wall clock.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson

_DIRECTORY: Final = "faults"
_ROUTES: Final = "routes.json"


@dataclass(frozen=True, slots=True)
class DoorFaults:
    """`full`: whatever needs room fails with ENOSPC. `failing`: the step that fails with EIO, "sync" or
    "write". `sync_delay_s`: added to each sync. `wall_shift_s`: added to the wall clock."""

    full: bool = False
    failing: str = ""
    sync_delay_s: float = 0.0
    wall_shift_s: float = 0.0


NO_FAULTS: Final = DoorFaults()


class FaultFile:
    """The file of one member. A read costs one stat(2) while nothing changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._faults = NO_FAULTS

    @classmethod
    def of(cls, cluster_root: Path, member: str) -> FaultFile:
        """Of the store `member` in the folder of a cluster."""
        return cls(cluster_root / _DIRECTORY / f"{member}.json")

    @classmethod
    def beside(cls, data_dir: str, member: str) -> FaultFile:
        """The same one, found by the member, whose data lies in `<root>/data/<member>`."""
        return cls.of(Path(data_dir).absolute().parents[1], member)

    def write(self, faults: DoorFaults) -> None:
        """Ask for these from now on, instead of what was asked before."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _replace(self._path, orjson.dumps(asdict(faults)))

    def read(self) -> DoorFaults:
        """What is asked for at this moment."""
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            return NO_FAULTS
        seen = (stat.st_ino, stat.st_mtime_ns)
        if seen != self._seen:
            self._faults = DoorFaults(**orjson.loads(self._path.read_bytes()))
            self._seen = seen
        return self._faults


class Routes:
    """By which proxy each member reaches each peer: {member: {peer address: proxy address}}."""

    def __init__(self, cluster_root: Path) -> None:
        self._path = cluster_root / _DIRECTORY / _ROUTES

    @classmethod
    def beside(cls, data_dir: str) -> Routes:
        """As `FaultFile.beside`."""
        return cls(Path(data_dir).absolute().parents[1])

    def write(self, routes: dict[str, dict[str, str]]) -> None:
        """Before the cluster starts."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _replace(self._path, orjson.dumps(routes))

    def of(self, member: str) -> dict[str, str]:
        """Those of one member; none where there is no proxy."""
        if not self._path.exists():
            return {}
        routes: dict[str, dict[str, str]] = orjson.loads(self._path.read_bytes())
        return routes.get(member, {})


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
