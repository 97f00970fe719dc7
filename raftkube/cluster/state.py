"""Where a cluster's files lie, and which ports it was given.

    <base>/<name>/cluster.json     the cluster file's text, the ports, the names: what a restart reuses
                  processes.json   pid and start time of every process, for `down` after a crash
                  control.sock     the supervisor listens here
                  store-admin.json endpoints and certificate for `raftkube kv`
                  admin.kubeconfig pki/ kubeconfigs/ data/ logs/ kubelet/

<base> is $RAFTKUBE_STATE_DIR, else $XDG_STATE_HOME/raftkube, else ~/.local/state/raftkube.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from raftkube.cluster.config import check_name
from raftkube.errors import ConfigError
from raftkube.files import read_file, write_file


def state_base() -> Path:
    """The folder of all clusters of this user."""
    explicit = os.environ.get("RAFTKUBE_STATE_DIR")
    if explicit:
        return Path(explicit)
    state_home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state_home, "raftkube")


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The folder of one cluster."""

    name: str
    root: Path

    @classmethod
    def of(cls, name: str) -> ClusterState:
        """The state of cluster `name`, existing or not. Raises ConfigError: not a name."""
        return cls(check_name(name), state_base() / name)

    @property
    def exists(self) -> bool:
        """Whether this cluster was ever started here."""
        return (self.root / "cluster.json").exists()

    @property
    def control_socket(self) -> Path:
        return self.root / "control.sock"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.root / "admin.kubeconfig"

    def kubeconfig_of(self, component: str) -> Path:
        return self.root / "kubeconfigs" / f"{component}.kubeconfig"

    def log_of(self, component: str) -> Path:
        return self.root / "logs" / f"{component}.log"

    def data_of(self, component: str) -> Path:
        return self.root / "data" / component

    def make_root(self) -> None:
        """Make the folder, for its owner only. Raises ConfigError: it cannot be made."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"state folder {str(self.root)!r} cannot be made: {error.strerror}") from error

    def read_json(self, name: str) -> dict[str, Any]:
        """Raises ConfigError: missing or damaged."""
        try:
            loaded: dict[str, Any] = orjson.loads(read_file(self.root / name, what="state file"))
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"state file {str(self.root / name)!r} is damaged: {error}") from error
        return loaded

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        write_file(self.root / name, orjson.dumps(value, option=orjson.OPT_INDENT_2))

    def require(self) -> ClusterState:
        """Raises ConfigError unless the cluster was started here before."""
        if not self.exists:
            raise ConfigError(
                f"there is no cluster {self.name!r} in {str(self.root.parent)!r}; start it: raftkube up"
            )
        return self
