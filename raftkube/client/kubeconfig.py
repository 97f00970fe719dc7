"""Reads kubeconfigs: which servers, whom they must prove to be, and who we are.

Every server that the extension `raftkube.dev/servers` lists is taken, else the one in `server`. Embedded
PEM is written beside the kubeconfig, by content, because TLS wants files.
Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raftkube.client.rest import RestClient
from raftkube.clock import Clock
from raftkube.errors import ConfigError
from raftkube.files import read_file, write_file
from raftkube.net import Address, Network, TlsFiles, parse_address
from raftkube.rng import Rng

SERVERS_EXTENSION: Final = "raftkube.dev/servers"
_UNSUPPORTED_USER: Final = ("exec", "auth-provider", "username", "password")
_UNSUPPORTED_CLUSTER: Final = ("insecure-skip-tls-verify", "proxy-url")


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """What it takes to talk to one cluster as one user. `namespace` is the context's default."""

    servers: tuple[Address, ...]
    tls: TlsFiles | None
    bearer_token: str | None = None
    namespace: str = "default"

    def client(self, network: Network, *, user_agent: str, clock: Clock, rng: Rng) -> RestClient:
        """A client with these servers and credentials."""
        return RestClient.connect(
            network,
            self.servers,
            self.tls,
            user_agent=user_agent,
            clock=clock,
            rng=rng,
            bearer_token=self.bearer_token,
        )


def load_kubeconfig(
    path: str | None = None,
    *,
    context: str = "",
    environ: Mapping[str, str] | None = None,
    pem_directory: str | None = None,
) -> ClusterAccess:
    """From `path`, else $KUBECONFIG (several files: the first that has an entry wins), else
    ~/.kube/config; `context` or the current one.

    pem_directory: where embedded PEM is written (default: `.raftkube-pem` beside the file).
    Raises ConfigError naming what is missing or not supported.
    """
    files = _paths(path, os.environ if environ is None else environ)
    entries = _merged([_Source.load(name, pem_directory) for name in files], where=files[0])
    return entries.access(context)


def _paths(path: str | None, environ: Mapping[str, str]) -> list[str]:
    if path is not None:
        return [path]
    listed = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    present = [part for part in listed if Path(part).exists()]
    if listed:
        return present or listed[:1]
    return [str(Path(environ.get("HOME") or os.path.expanduser("~"), ".kube", "config"))]


@dataclass(frozen=True, slots=True)
class _Source:
    """One file. Relative paths in it are relative to it."""

    path: Path
    content: dict[str, Any]
    pem_directory: Path

    @classmethod
    def load(cls, name: str, pem_directory: str | None) -> _Source:
        import yaml

        path = Path(name)
        try:
            content = yaml.load(read_file(path, what="kubeconfig"), Loader=yaml.CSafeLoader)
        except yaml.YAMLError as error:
            problem = str(getattr(error, "problem", None) or "it cannot be parsed")
            raise ConfigError(f"kubeconfig {name!r} is not YAML: {problem}") from error
        if not isinstance(content, dict):
            raise ConfigError(
                f"kubeconfig {name!r} is empty or not a mapping; write one or pass --kubeconfig"
            )
        return cls(path, content, Path(pem_directory or path.parent / ".raftkube-pem"))

    def pem(self, entry: Mapping[str, Any], field: str) -> str | None:
        """The path of a PEM file that `entry` names in `field` or embeds in `field`-data."""
        if embedded := entry.get(f"{field}-data"):
            try:
                data = base64.b64decode(str(embedded), validate=True)
            except (binascii.Error, ValueError) as error:
                raise ConfigError(f"kubeconfig {str(self.path)!r}: {field}-data is not base64") from error
            target = self.pem_directory / f"{hashlib.sha256(data).hexdigest()[:32]}.pem"
            if not target.exists():
                write_file(target, data, mode=0o600)
            return str(target)
        named = entry.get(field)
        return str(self.path.parent / str(named)) if named else None


@dataclass(frozen=True, slots=True)
class _Entries:
    """The entries of one or more files, each with the file that it came from."""

    where: str
    current: str
    clusters: dict[str, tuple[_Source, dict[str, Any]]]
    users: dict[str, tuple[_Source, dict[str, Any]]]
    contexts: dict[str, tuple[_Source, dict[str, Any]]]

    def access(self, context: str) -> ClusterAccess:
        name = context or self.current
        if not name:
            raise ConfigError(f"kubeconfig {self.where!r} has no current-context; set one")
        _, chosen = self._entry(self.contexts, "context", name)
        source, cluster = self._entry(self.clusters, "cluster", str(chosen.get("cluster") or ""))
        self._refuse(cluster, _UNSUPPORTED_CLUSTER, "cluster")
        user_source, user = source, dict[str, Any]()
        if chosen.get("user"):
            user_source, user = self._entry(self.users, "user", str(chosen["user"]))
            self._refuse(user, _UNSUPPORTED_USER, "user")
        urls = self._urls(cluster)
        tls = None
        if urls[0].startswith("https://"):
            tls = TlsFiles(
                ca_file=source.pem(cluster, "certificate-authority"),
                cert_file=user_source.pem(user, "client-certificate"),
                key_file=user_source.pem(user, "client-key"),
                server_name=cluster.get("tls-server-name"),
            )
        return ClusterAccess(
            tuple(_address(url) for url in urls),
            tls,
            _token(user_source, user),
            str(chosen.get("namespace") or "default"),
        )

    def _entry(
        self, section: dict[str, tuple[_Source, dict[str, Any]]], what: str, name: str
    ) -> tuple[_Source, dict[str, Any]]:
        if name not in section:
            known = ", ".join(sorted(section)) or "none"
            raise ConfigError(f"kubeconfig {self.where!r} has no {what} {name!r} (it has: {known})")
        return section[name]

    def _refuse(self, entry: Mapping[str, Any], fields: tuple[str, ...], what: str) -> None:
        for field in fields:
            if entry.get(field):
                raise ConfigError(
                    f"kubeconfig {self.where!r}: {what} field {field!r} is not supported; "
                    "use a certificate authority, and a client certificate or a token"
                )

    def _urls(self, cluster: Mapping[str, Any]) -> list[str]:
        urls = [str(cluster.get("server") or "")]
        for extension in cluster.get("extensions") or ():
            if isinstance(extension, dict) and extension.get("name") == SERVERS_EXTENSION:
                listed = (extension.get("extension") or {}).get("servers")
                if isinstance(listed, list) and listed:
                    urls = [str(url) for url in listed]
        for url in urls:
            if not url.startswith(("https://", "http://")):
                raise ConfigError(
                    f"kubeconfig {self.where!r}: server {url!r} must be a URL, https://host:port"
                )
        if len({url.partition("://")[0] for url in urls}) > 1:
            raise ConfigError(f"kubeconfig {self.where!r}: servers mix http:// and https://")
        return urls


def _address(url: str) -> Address:
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0]
    if not host.rpartition(":")[2].isdigit() or host.endswith("]"):
        host += ":443" if scheme == "https" else ":80"
    return parse_address(host)


def _token(source: _Source, user: Mapping[str, Any]) -> str | None:
    if named := user.get("tokenFile"):
        return read_file(source.path.parent / str(named), what="token file").decode().strip()
    return str(user["token"]) if user.get("token") else None


def _merged(sources: list[_Source], *, where: str) -> _Entries:
    def section(plural: str, singular: str) -> dict[str, tuple[_Source, dict[str, Any]]]:
        found: dict[str, tuple[_Source, dict[str, Any]]] = {}
        for source in sources:
            for entry in source.content.get(plural) or ():
                if isinstance(entry, dict) and isinstance(entry.get(singular), dict):
                    found.setdefault(str(entry.get("name")), (source, entry[singular]))
        return found

    currents = [str(source.content.get("current-context") or "") for source in sources]
    return _Entries(
        where=where,
        current=next((name for name in currents if name), ""),
        clusters=section("clusters", "cluster"),
        users=section("users", "user"),
        contexts=section("contexts", "context"),
    )
