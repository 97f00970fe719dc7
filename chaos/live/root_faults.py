"""Faults that only root can do.

Cuts by network namespaces and packet filters are left to the proxy (`chaos.live.network_faults`), which does
all that they could do to connections, and more, for an ordinary user.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from chaos.live import fault as of
from chaos.live.fault import Fault, Record, Site

_CGROUPS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


class Freezer:
    """A cgroup (version 2) of our own in which processes stand still without a signal. `root`: where the
    hierarchy is mounted."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / f"raftkube-chaos-{os.getpid()}"
        self._homes: dict[int, Path] = {}

    @classmethod
    def find(cls) -> Freezer | None:
        """Where version 2 is mounted and writable; None if nowhere."""
        roots = [root for root in _CGROUPS if (root / "cgroup.controllers").exists()]
        return cls(roots[0]) if roots and os.access(roots[0], os.W_OK) else None

    @property
    def frozen(self) -> bool:
        """Whether everything in it stands still by now."""
        return "frozen 1" in (self._folder / "cgroup.events").read_text()

    @property
    def exists(self) -> bool:
        """Between `freeze` and `thaw`."""
        return self._folder.exists()

    def freeze(self, pids: list[int]) -> None:
        """Raises OSError: not permitted. `thaw` must follow all the same."""
        self._folder.mkdir(exist_ok=True)
        (self._folder / "cgroup.freeze").write_text("1")
        for pid in pids:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            home = next(line[len("0::/") :] for line in lines if line.startswith("0::/"))
            self._homes[pid] = self._root / home
            (self._folder / "cgroup.procs").write_text(str(pid))

    def thaw(self) -> None:
        """Everything runs again, where it was before."""
        (self._folder / "cgroup.freeze").write_text("0")
        for pid, home in self._homes.items():
            with suppress(OSError):  # it has ended
                (home / "cgroup.procs").write_text(str(pid))
        self._folder.rmdir()


async def _frozen(site: Site, targets: list[str]) -> Record | None:
    """Stand still for 2 to 4 s."""
    freezer = Freezer.find()
    assert freezer is not None, "chosen without a cgroup hierarchy"
    pids = await site.cluster.pids(targets)
    try:
        freezer.freeze(pids)
        await site.for_a_while(2, 4)
    finally:
        freezer.thaw()
    return None


ROOT_FAULTS: Final = (
    Fault(
        name="freeze-store-leader",
        group="pause",
        kind="store",
        role="leader",
        done="the leader stands still in a frozen cgroup for 2 to 4 s, as a container that is paused",
        consequence="another member leads in a later term",
        spares="the old leader, awake again, serves no stale read",
        act=_frozen,
        effect=of.another_leads,
        needs=("root", "cgroup"),
    ),
)
