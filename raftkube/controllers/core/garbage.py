"""The garbage collector: what becomes of an object, given its owners and its dependents.

Owners are told apart by uid. One whose absence is not proven counts as there, so nothing is deleted on a
guess. Source: k8s.io/kubernetes/pkg/controller/garbagecollector (attemptToDeleteItem).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from raftkube.api.deletion import BACKGROUND, FOREGROUND, ORPHAN
from raftkube.api.metadata import FOREGROUND_FINALIZER, ORPHAN_FINALIZER
from raftkube.api.objects import items
from raftkube.api.resource import Object
from raftkube.controllers.core.owners import is_deleting, references


class OwnerState(Enum):
    """solid: it is there; absent: it is proven gone; waiting: it goes as soon as its dependents have."""

    SOLID = "solid"
    ABSENT = "absent"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Disown:
    """Take these owners out: others remain, and these are gone or wait for it."""

    owner_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Collect:
    """Delete it. unblock: first let its owners no longer wait for it, for they wait for each other."""

    propagation: str
    unblock: bool = False


@dataclass(frozen=True, slots=True)
class Visit:
    """Look at these dependents, which its deletion waits for."""

    dependents: tuple[Object, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """Remove this finalizer: its work is done."""

    finalizer: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """Take it out of all its dependents' owners, then remove the orphan finalizer."""


Action = Leave | Disown | Collect | Visit | Finish | Orphan


def plan(item: Object, owners: Mapping[str, OwnerState], dependents: Sequence[Object]) -> Action:
    """item: as just read; owners: the state of each owner by uid; dependents: as cached."""
    if is_deleting(item):
        return _of_deleted(item, dependents)
    if not references(item):
        return Leave()
    absent = tuple(uid for uid, state in owners.items() if state is OwnerState.ABSENT)
    waiting = tuple(uid for uid, state in owners.items() if state is OwnerState.WAITING)
    if OwnerState.SOLID in owners.values():
        return Disown(absent + waiting) if absent or waiting else Leave()
    if waiting and dependents:
        return Collect(FOREGROUND, unblock=any(waits_for_dependents(each) for each in dependents))
    return Collect(_carried_propagation(item))


def _of_deleted(item: Object, dependents: Sequence[Object]) -> Action:
    if _has(item, ORPHAN_FINALIZER):
        return Orphan()
    if not _has(item, FOREGROUND_FINALIZER):
        return Leave()
    if not any(blocks(each, item) for each in dependents):
        return Finish(FOREGROUND_FINALIZER)
    return Visit(tuple(each for each in dependents if not is_deleting(each)))


def _carried_propagation(item: Object) -> str:
    """An earlier wish, which finalizers remember, goes on."""
    if _has(item, ORPHAN_FINALIZER):
        return ORPHAN
    return FOREGROUND if _has(item, FOREGROUND_FINALIZER) else BACKGROUND


def blocks(dependent: Object, owner: Object) -> bool:
    """Whether the owner's foreground deletion waits for this dependent."""
    uid = owner["metadata"]["uid"]
    return any(ref.get("uid") == uid and ref.get("blockOwnerDeletion") for ref in references(dependent))


def waits_for_dependents(obj: Object) -> bool:
    """Whether it is being deleted in the foreground."""
    return is_deleting(obj) and _has(obj, FOREGROUND_FINALIZER)


def waits_to_orphan(obj: Object) -> bool:
    """Whether it is being deleted and its dependents shall stay."""
    return is_deleting(obj) and _has(obj, ORPHAN_FINALIZER)


def _has(obj: Object, finalizer: str) -> bool:
    return finalizer in items(obj["metadata"], "finalizers")
