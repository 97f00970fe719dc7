"""kubeconfig files: one for each component, and the user's, into which a context is merged.

Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/.
The extension `raftkube.dev/servers` lists every API server, so that our own clients fail over by
themselves; others ignore it.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from raftkube.errors import ConfigError
from raftkube.files import read_file, write_file

SERVERS_EXTENSION: Final = "raftkube.dev/servers"


def make_kubeconfig(
    *, name: str, user: str, servers: Sequence[str], ca: bytes, certificate: bytes, key: bytes
) -> dict[str, Any]:
    """A kubeconfig with one cluster, user and context, all named `name` (the user `name`-`user`).

    servers: URLs, the first is the one that plain clients use. PEM is embedded.
    """
    cluster: dict[str, Any] = {
        "server": servers[0],
        "certificate-authority-data": base64.b64encode(ca).decode(),
    }
    if len(servers) > 1:
        cluster["extensions"] = [{"name": SERVERS_EXTENSION, "extension": {"servers": list(servers)}}]
    credentials = {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    user_name = f"{name}-{user}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": user_name, "user": credentials}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user_name}}],
        "current-context": name,
        "preferences": {},
    }


def write_kubeconfig(path: Path, config: dict[str, Any]) -> None:
    """Write with mode 0600."""
    write_file(path, yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False).encode(), mode=0o600)


def user_kubeconfig_path() -> Path:
    """The file that kubectl would change: the first of $KUBECONFIG, else ~/.kube/config."""
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(listed[0]) if listed else Path(os.path.expanduser("~/.kube/config"))


def merge_context(path: Path, config: dict[str, Any]) -> None:
    """Put `config`'s entries into the file at `path` (made if missing) and make its context current.

    Raises ConfigError: the file there is not a kubeconfig; it is left as it is.
    """
    with _locked(path):
        merged = _load(path)
        for section in ("clusters", "users", "contexts"):
            names = {entry["name"] for entry in config[section]}
            kept = [
                e for e in merged.get(section) or [] if isinstance(e, dict) and e.get("name") not in names
            ]
            merged[section] = kept + config[section]
        merged["current-context"] = config["current-context"]
        write_kubeconfig(path, merged)


def remove_context(path: Path, name: str) -> None:
    """Take the context `name`, its cluster and its users out of the file at `path`, if they are there."""
    if not path.exists():
        return
    with _locked(path):
        merged = _load(path)
        for section in ("clusters", "users", "contexts"):
            merged[section] = [
                entry
                for entry in merged.get(section) or []
                if not (isinstance(entry, dict) and _belongs(section, str(entry.get("name")), name))
            ]
        if merged.get("current-context") == name:
            merged["current-context"] = ""
        write_kubeconfig(path, merged)


def _belongs(section: str, entry: str, name: str) -> bool:
    return entry == f"{name}-admin" if section == "users" else entry == name


def _load(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    try:
        loaded = yaml.load(read_file(path, what="kubeconfig"), Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"kubeconfig {str(path)!r} is not YAML; mend or move it") from error
    if loaded is None:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    if not isinstance(loaded, dict):
        raise ConfigError(f"kubeconfig {str(path)!r} is not a kubeconfig; mend or move it")
    return loaded


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path`.raftkube.lock, so that two `up`s do not lose each other's contexts."""
    lock = path.with_name(f".{path.name}.raftkube.lock")
    if not lock.exists():
        write_file(lock, b"")
    with lock.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
