"""What the API server must know of one resource: everything else is driven by this table.

A built-in kind is one file in `raftkube.api.kinds` with a module constant RESOURCE; a custom resource is
the same descriptor made at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from raftkube.api.status import FieldError

Object = dict[str, Any]

ALL_VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the Table form. priority 0 is always shown, 1 only with `-o wide`."""

    name: str
    type: str = "string"  # string, integer, number, boolean, date
    format: str = ""  # "name" for the name column
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Subresource:
    """`status`, `scale`, `binding`, `log`, …: its own kind (group/version/kind) and verbs."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


def _nothing(obj: Object) -> None:
    """No defaults beyond the schema's."""


def _no_create(obj: Object) -> None:
    """Nothing to prepare."""


def _no_update(new: Object, old: Object) -> None:
    """Nothing to carry over."""


def _no(obj: Object) -> bool:
    return False


def _valid(obj: Object) -> list[FieldError]:
    return []


def _valid_update(new: Object, old: Object) -> list[FieldError]:
    return []


@dataclass(frozen=True, slots=True)
class Strategy:
    """A kind's own rules. Each gets objects that it may change in place (default, prepare_*) or must
    not (validate_*). Order: default → prepare → validate. Status is handled by the machinery: a write to
    the main resource keeps the old status when the kind has a status subresource, a write to `status`
    keeps everything but status (and metadata that upstream allows).

    default:           set fields that were left out, as upstream's SetDefaults_*.
    prepare_create:    e.g. clear status, set phase.
    prepare_update:    (new, old), e.g. carry allocated fields over.
    prepare_status_update: (new, old), after spec and metadata were put back.
    validate:          all that is wrong with an object by itself (beyond the schema's types).
    validate_update:   all that is wrong with going from old to new (immutable fields).
    generation:        True if spec changes move metadata.generation (kinds with a spec and generation).
    """

    default: Callable[[Object], None] = _nothing
    prepare_create: Callable[[Object], None] = _no_create
    prepare_update: Callable[[Object, Object], None] = _no_update
    prepare_status_update: Callable[[Object, Object], None] = _no_update
    validate: Callable[[Object], list[FieldError]] = _valid
    validate_update: Callable[[Object, Object], list[FieldError]] = _valid_update
    validate_status_update: Callable[[Object, Object], list[FieldError]] = _valid_update
    generation: bool = False
    # Seconds that a delete waits by default (pods: spec.terminationGracePeriodSeconds); None: no grace.
    default_grace_period_s: Callable[[Object], int | None] = field(default=lambda obj: None)
    # What a DELETE without propagationPolicy means: Background, or Orphan for old kinds.
    default_propagation: str = "Background"
    # RFC 1123 subdomain for most names; "dns_label" for Namespace, Service, …
    # (the keys of `raftkube.api.names.NAME_FORMATS`)
    name_format: str = "dns_subdomain"
    # A delete skips the grace period, whatever was asked (a pod that no node runs).
    deletes_at_once: Callable[[Object], bool] = _no
    # Something beside metadata.finalizers holds a deleted object (a namespace's spec.finalizers).
    deletion_held: Callable[[Object], bool] = _no
    # What a delete that must wait changes beside metadata (a namespace's phase); metadata is a copy,
    # the rest is shared with the stored object and must be replaced, not changed in place.
    prepare_deletion: Callable[[Object], None] = _no_create
    # Whether an update may leave out the resourceVersion, and whether it may create.
    unconditional_update: bool = True
    create_on_update: bool = False


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of one group and version.

    row(obj, now) gives the cells of the Table form, in the columns' order; `now` is wall seconds, for
    ages (see `raftkube.api.tables.age`).
    field_selectors maps a selectable path to its value in an object as text; metadata.name and
    metadata.namespace are always there.
    schema is the name of its definition (io.k8s.api.core.v1.Pod).
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    schema: str
    columns: tuple[Column, ...]
    row: Callable[[Object, float], list[Any]]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    field_selectors: Mapping[str, Callable[[Object], str]] = field(default_factory=dict)
    strategy: Strategy = field(default_factory=Strategy)

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def has_status(self) -> bool:
        """Whether it has the status subresource."""
        return any(sub.name == "status" for sub in self.subresources)

    def key_prefix(self, namespace: str = "") -> str:
        """Where its objects lie in the store: /registry/<group>/<plural>/[<namespace>/]."""
        base = f"/registry/{self.group or 'core'}/{self.plural}/"
        return f"{base}{namespace}/" if namespace else base

    def key(self, namespace: str, name: str) -> str:
        """The store key of one object."""
        return self.key_prefix(namespace if self.namespaced else "") + name
