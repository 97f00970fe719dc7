"""Which stores were ever started in this cluster's life.

A member's first start makes the cluster; any later one joins a cluster that exists. So a data directory
that was wiped can never come back under its old id, by which it would forget what it had promised.
"""

from __future__ import annotations

import contextlib
from typing import Final

from raftkube.cluster.state import ClusterState
from raftkube.errors import ConfigError

_FILE: Final = "started-stores.json"


class FirstStarts:
    """Kept in the cluster's folder; `raftkube down --purge` ends it with the cluster."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state

    def note(self, names: list[str]) -> None:
        """Remember those of `names` whose data directories have an identity: they have started."""
        known = self._known()
        begun = {name for name in names if (self._state.data_of(name) / "identity").exists()}
        if begun - known:
            self._state.write_json(_FILE, {"stores": sorted(known | begun)})

    def flag(self, name: str) -> str:
        """The value of --initial-cluster-state for the next start of `name`."""
        begun = (self._state.data_of(name) / "identity").exists()
        with contextlib.suppress(ConfigError):  # no room to write it down: the next start will
            self.note([name])
        return "existing" if begun or name in self._known() else "new"

    def _known(self) -> set[str]:
        if not (self._state.root / _FILE).exists():
            return set()
        return set(self._state.read_json(_FILE).get("stores", ()))
