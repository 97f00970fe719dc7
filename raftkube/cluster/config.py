"""The cluster file: what `raftkube up` starts.

    apiVersion: raftkube.dev/v1alpha1
    kind: Cluster
    spec:
      testing: false            # true allows mutants and faults on request; never for real use
      images: stand-in          # or strict: an image that cannot be unpacked is ImagePullBackOff
      balancer: {port: 6443}    # where kubectl connects; 0 asks for a free port
      store: {replicas: 3}      # or members: [{name: store-1, clientPort: 2379, peerPort: 2380}, ...]
                                # launcher: the module that runs members, in tests only [default: raftkube]
      apiserver: {replicas: 2}
      controllerManager: {replicas: 2}
      scheduler: {replicas: 2}
      kubelet: {replicas: 2, runtime: process}

Only `store` is required. Without `apiserver` there must be nothing that needs one. Every part takes
`flags`, a list of further command-line flags for its processes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from raftkube.errors import ConfigError

API_VERSION: Final = "raftkube.dev/v1alpha1"
_STORE_SIZES: Final = (1, 3, 5, 7)
_REPLICAS_MAX: Final = 64
PROGRAM: Final = "raftkube"  # the module that every component is run as, `python -m`
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoreMember:
    """One member; port 0 asks for a free one."""

    name: str
    client_port: int = 0
    peer_port: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """The copies of one stateless component."""

    replicas: int = 0
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """A validated cluster file."""

    members: tuple[StoreMember, ...]
    store_flags: tuple[str, ...] = ()
    mutant: str = ""
    launcher: str = PROGRAM
    testing: bool = False
    images: str = "stand-in"
    balancer_port: int = 0
    apiserver: Part = field(default_factory=Part)
    controller_manager: Part = field(default_factory=Part)
    scheduler: Part = field(default_factory=Part)
    kubelet: Part = field(default_factory=Part)
    runtime: str = "process"


def check_name(name: str) -> str:
    """A cluster's or member's name: an RFC 1123 label. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name {name!r} must be lower-case letters, digits and '-', at most 63 of them")
    return name


def parse_cluster(text: bytes | str, source: str) -> ClusterConfig:
    """Read a cluster file. Raises ConfigError: one sentence that names `source`, the field and the fix."""
    try:
        document = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise ConfigError(f"cluster file {source}: not YAML{line}") from error
    return _Reader(source).cluster(document)


class _Reader:
    """Walks the document; every complaint names the path of the field."""

    def __init__(self, source: str) -> None:
        self._source = source

    def cluster(self, document: Any) -> ClusterConfig:
        top = self._mapping(document, "", ("apiVersion", "kind", "metadata", "spec"))
        if top.get("apiVersion") != API_VERSION or top.get("kind") != "Cluster":
            self._fail("apiVersion", f"write apiVersion: {API_VERSION} and kind: Cluster")
        spec = self._mapping(
            top.get("spec"),
            "spec",
            (
                "testing",
                "images",
                "balancer",
                "store",
                "apiserver",
                "controllerManager",
                "scheduler",
                "kubelet",
            ),
        )
        store = self._mapping(
            spec.get("store"), "spec.store", ("replicas", "members", "flags", "mutant", "launcher")
        )
        kubelet = self._mapping(spec.get("kubelet", {}), "spec.kubelet", ("replicas", "runtime", "flags"))
        balancer = self._mapping(spec.get("balancer", {}), "spec.balancer", ("port",))
        config = ClusterConfig(
            members=self._members(store),
            store_flags=self._flags(store, "spec.store"),
            mutant=self._text(store, "spec.store", "mutant", ""),
            launcher=self._text(store, "spec.store", "launcher", PROGRAM),
            testing=self._boolean(spec, "spec", "testing"),
            images=self._choice(spec, "spec", "images", ("stand-in", "strict")),
            balancer_port=self._integer(balancer, "spec.balancer", "port", 0, 65535),
            apiserver=self._part(spec, "apiserver"),
            controller_manager=self._part(spec, "controllerManager"),
            scheduler=self._part(spec, "scheduler"),
            kubelet=Part(
                self._integer(kubelet, "spec.kubelet", "replicas", 0, _REPLICAS_MAX),
                self._flags(kubelet, "spec.kubelet"),
            ),
            runtime=self._choice(kubelet, "spec.kubelet", "runtime", ("process", "fake")),
        )
        self._check_together(config)
        return config

    def _check_together(self, config: ClusterConfig) -> None:
        if config.mutant and not config.testing:
            self._fail("spec.store.mutant", "mutants are refused unless spec.testing is true")
        if not _MODULE.fullmatch(config.launcher):
            self._fail("spec.store.launcher", f"is {config.launcher!r}; write a Python module such as a.b")
        if config.launcher != PROGRAM and not config.testing:
            self._fail("spec.store.launcher", "is refused unless spec.testing is true")
        needs_api = config.controller_manager, config.scheduler, config.kubelet
        if not config.apiserver.replicas and any(part.replicas for part in needs_api):
            self._fail("spec.apiserver.replicas", "must be at least 1 where other components need it")

    def _members(self, store: Mapping[str, Any]) -> tuple[StoreMember, ...]:
        if "members" not in store:
            count = self._integer(store, "spec.store", "replicas", 1, 7, default=3)
            members = tuple(StoreMember(f"store-{number}") for number in range(1, count + 1))
        else:
            if "replicas" in store:
                self._fail("spec.store.replicas", "say replicas or members, not both")
            if not isinstance(store["members"], list):
                self._fail("spec.store.members", "must be a list")
            members = tuple(self._member(item, n) for n, item in enumerate(store["members"]))
        if len(members) not in _STORE_SIZES:
            self._fail("spec.store", f"has {len(members)} members; a majority needs 1, 3, 5 or 7")
        seen: set[str] = set()
        for member in members:
            if member.name in seen:
                self._fail("spec.store.members", f"two members are named {member.name!r}; names must differ")
            seen.add(member.name)
        return members

    def _member(self, item: Any, number: int) -> StoreMember:
        path = f"spec.store.members[{number}]"
        fields = self._mapping(item, path, ("name", "clientPort", "peerPort"))
        name = self._text(fields, path, "name", "")
        try:
            check_name(name)
        except ConfigError as error:
            self._fail(f"{path}.name", str(error))
        return StoreMember(
            name,
            self._integer(fields, path, "clientPort", 0, 65535),
            self._integer(fields, path, "peerPort", 0, 65535),
        )

    def _part(self, spec: Mapping[str, Any], name: str) -> Part:
        path = f"spec.{name}"
        fields = self._mapping(spec.get(name, {}), path, ("replicas", "flags"))
        return Part(self._integer(fields, path, "replicas", 0, _REPLICAS_MAX), self._flags(fields, path))

    def _flags(self, fields: Mapping[str, Any], path: str) -> tuple[str, ...]:
        flags = fields.get("flags", [])
        if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
            self._fail(f"{path}.flags", 'must be a list of texts such as ["-v"]')
        return tuple(flags)

    def _mapping(self, value: Any, path: str, known: tuple[str, ...]) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            what = "is missing" if value is None else "must be a mapping"
            self._fail(path or "the document", f"{what}; its fields are {', '.join(known)}")
        for name in value:
            if name not in known:
                prefix = f"{path}." if path else ""
                self._fail(f"{prefix}{name}", f"is not a field; known here are {', '.join(known)}")
        return value

    def _integer(
        self, fields: Mapping[str, Any], path: str, name: str, low: int, high: int, *, default: int = 0
    ) -> int:
        value = fields.get(name, default)
        if type(value) is not int or not low <= value <= high:
            self._fail(f"{path}.{name}", f"is {value!r}; write a whole number from {low} to {high}")
        return value

    def _text(self, fields: Mapping[str, Any], path: str, name: str, default: str) -> str:
        value = fields.get(name, default)
        if not isinstance(value, str):
            self._fail(f"{path}.{name}", f"is {value!r}; write a text")
        return value

    def _boolean(self, fields: Mapping[str, Any], path: str, name: str) -> bool:
        value = fields.get(name, False)
        if not isinstance(value, bool):
            self._fail(f"{path}.{name}", f"is {value!r}; write true or false")
        return value

    def _choice(self, fields: Mapping[str, Any], path: str, name: str, choices: tuple[str, ...]) -> str:
        value = fields.get(name, choices[0])
        if value not in choices:
            self._fail(f"{path}.{name}", f"is {value!r}; write {' or '.join(choices)}")
        return str(value)

    def _fail(self, path: str, why: str) -> NoReturn:
        raise ConfigError(f"cluster file {self._source}: {path} {why}")
