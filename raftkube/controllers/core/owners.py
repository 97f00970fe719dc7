"""Who owns an object: ownerReferences, and what a controller claims, adopts and releases.

Source: k8s.io/kubernetes/pkg/controller/controller_ref_manager.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from raftkube.api.objects import items, section
from raftkube.api.resource import Object
from raftkube.api.selectors import LabelSelector


def references(obj: Object) -> list[Object]:
    """All ownerReferences."""
    return items(obj["metadata"], "ownerReferences")


def controller_of(obj: Object) -> Object | None:
    """The reference to the owner that controls it."""
    return next((ref for ref in references(obj) if ref.get("controller")), None)


def controlled_by(obj: Object, owner: Object) -> bool:
    """Whether `owner`, this very object by uid, controls it."""
    ref = controller_of(obj)
    return ref is not None and ref.get("uid") == owner["metadata"]["uid"]


def controller_reference(owner: Object) -> Object:
    """The reference that makes `owner` the controller (metav1.NewControllerRef)."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_deleting(obj: Object) -> bool:
    """Whether somebody has deleted it; it may wait for a grace period or finalizers."""
    return bool(obj["metadata"].get("deletionTimestamp"))


class Claim(NamedTuple):
    """What of the candidates is ours. adopt are orphans that match, and among `ours`; release are ours
    that match no more."""

    ours: list[Object]
    adopt: list[Object]
    release: list[Object]


def claim(owner: Object, selector: LabelSelector, candidates: Iterable[Object]) -> Claim:
    """Sort candidates (the owned and the orphans of the owner's namespace). Source: ClaimObject."""
    found = Claim([], [], [])
    for obj in candidates:
        matches = selector.matches(section(obj["metadata"], "labels"))
        if controller_of(obj) is None:
            if matches and not is_deleting(owner) and not is_deleting(obj):
                found.adopt.append(obj)
                found.ours.append(obj)
        elif controlled_by(obj, owner):
            if matches:
                found.ours.append(obj)
            elif not is_deleting(owner):
                found.release.append(obj)
    return found


def adoption_patch(owner: Object, obj: Object) -> Object:
    """The merge patch that makes `owner` control `obj`; refused if `obj` changed meanwhile."""
    return _references_patch(obj, [*references(obj), controller_reference(owner)])


def removal_patch(obj: Object, owner_uids: Iterable[str]) -> Object:
    """The merge patch that takes these owners out of `obj`; refused if `obj` changed meanwhile."""
    gone = set(owner_uids)
    return _references_patch(obj, [ref for ref in references(obj) if ref.get("uid") not in gone])


def unblocking_patch(obj: Object) -> Object:
    """The merge patch after which no owner's deletion waits for `obj`."""
    return _references_patch(obj, [ref | {"blockOwnerDeletion": False} for ref in references(obj)])


def finalizers_patch(obj: Object, without: str) -> Object:
    """The merge patch that removes one finalizer; refused if `obj` changed meanwhile."""
    metadata = obj["metadata"]
    kept = [name for name in items(metadata, "finalizers") if name != without]
    return {"metadata": _identity(obj) | {"finalizers": kept}}


def _references_patch(obj: Object, refs: list[Object]) -> Object:
    return {"metadata": _identity(obj) | {"ownerReferences": refs}}


def _identity(obj: Object) -> Object:
    """A merge patch replaces whole lists, so it must apply to the state that it was made from."""
    metadata = obj["metadata"]
    return {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
