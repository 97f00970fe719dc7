"""What a DELETE does to an object: decide, from the object and the options, without doing it.

Three answers: remove it now; store it, marked with deletionTimestamp, because finalizers or a grace period
hold it; or leave it, because a deletion is already on its way.
Source: k8s.io/apiserver/pkg/registry/rest/delete.go and registry/generic/registry/store.go (Delete,
deletionFinalizersForGarbageCollection, markAsDeleting, ShouldDeleteDuringUpdate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from raftkube.api.metadata import FOREGROUND_FINALIZER, ORPHAN_FINALIZER
from raftkube.api.objects import copy_json, items, section
from raftkube.api.resource import Object, Resource
from raftkube.api.status import ApiError, FieldError, bad_request, conflict, invalid
from raftkube.api.timestamps import rfc3339, seconds

BACKGROUND: Final = "Background"
FOREGROUND: Final = "Foreground"
ORPHAN: Final = "Orphan"
_POLICIES: Final = (FOREGROUND, BACKGROUND, ORPHAN)


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """metav1.DeleteOptions, checked. uid and resource_version are preconditions."""

    grace_period_s: int | None = None
    propagation: str = ""  # "" means the resource's default
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False

    @staticmethod
    def parse(body: dict[str, Any]) -> DeleteOptions:
        """Of a request's body ({} for none). Raises ApiError: 400 wrong shape, 422 wrong value."""
        preconditions = body.get("preconditions") or {}
        grace = body.get("gracePeriodSeconds")
        if not isinstance(preconditions, dict) or not (grace is None or type(grace) is int):
            raise bad_request(
                "DeleteOptions: preconditions must be an object and gracePeriodSeconds an integer"
            )
        dry_run = body.get("dryRun") or []
        if dry_run not in ([], ["All"]):
            text = f'Unsupported value: {dry_run!r}: supported values: "All"'
            raise _invalid_options("dryRun", "FieldValueNotSupported", text)
        return DeleteOptions(
            grace_period_s=grace,
            propagation=_policy(body),
            uid=preconditions.get("uid") or "",
            resource_version=preconditions.get("resourceVersion") or "",
            dry_run=bool(dry_run),
        )


def _invalid_options(path: str, reason: str, text: str) -> ApiError:
    return invalid("meta.k8s.io", "DeleteOptions", "", [FieldError(path, reason, text)])


def _policy(body: dict[str, Any]) -> str:
    policy, orphan = body.get("propagationPolicy"), body.get("orphanDependents")
    if policy is not None and orphan is not None:
        text = f"Invalid value: {str(policy)!r}: orphanDependents and deletionPropagation cannot be both set"
        raise _invalid_options("propagationPolicy", "FieldValueInvalid", text.replace("'", '"'))
    if orphan is not None:
        return ORPHAN if orphan else BACKGROUND
    if policy and policy not in _POLICIES:
        text = f'Unsupported value: "{policy}": supported values: "Foreground", "Background", "Orphan", "nil"'
        raise _invalid_options("propagationPolicy", "FieldValueNotSupported", text)
    return policy or ""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What to do. obj: what to store, or, when delete_now, what the client is answered; changed is False if
    there is nothing to write (already being deleted, nothing shortened)."""

    delete_now: bool
    obj: Object
    changed: bool


def check_preconditions(obj: Object, resource: Resource, *, uid: str, resource_version: str) -> None:
    """Raise ApiError 409 unless both preconditions ("" for none) hold."""
    meta = section(obj, "metadata")
    if uid and uid != meta.get("uid"):
        _fail(obj, resource, "UID", uid, meta.get("uid"))
    if resource_version and resource_version != meta.get("resourceVersion"):
        _fail(obj, resource, "ResourceVersion", resource_version, meta.get("resourceVersion"))


def _fail(obj: Object, resource: Resource, what: str, wanted: str, found: object) -> None:
    name = obj["metadata"].get("name", "")
    why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
    raise conflict(resource.group, resource.plural, name, why)


def begin_deletion(resource: Resource, stored: Object, options: DeleteOptions, *, now: float) -> Deletion:
    """Decide what a DELETE does to `stored` (left untouched). now: wall seconds.

    Preconditions are checked by the caller (`check_preconditions`).
    """
    grace, pending = _grace(resource, stored, options)
    if pending:
        return Deletion(False, stored, False)
    obj: Object = {**stored, "metadata": copy_json(stored["metadata"])}
    meta = obj["metadata"]
    _set_finalizers(meta, gc_finalizers(resource, meta, options.propagation))
    held = bool(meta.get("finalizers")) or resource.strategy.deletion_held(obj)
    if grace is not None:
        _mark_graceful(meta, grace, now)
        delete_now = not held and grace == 0
    else:
        delete_now = not held
        _mark_now(meta, now)
    if not delete_now:
        resource.strategy.prepare_deletion(obj)
    return Deletion(delete_now, obj, obj != stored)


def _grace(resource: Resource, obj: Object, options: DeleteOptions) -> tuple[int | None, bool]:
    """(seconds to wait, None for kinds without grace; whether a deletion is pending and not shortened)."""
    meta = obj["metadata"]
    if meta.get("deletionTimestamp"):
        current = meta.get("deletionGracePeriodSeconds") or 0
        if current == 0:
            return None, False
        if options.grace_period_s is None or options.grace_period_s >= current:
            return None, True
        return max(options.grace_period_s, 0), False
    default = resource.strategy.default_grace_period_s(obj)
    if default is None:
        return None, False
    if resource.strategy.deletes_at_once(obj):
        return 0, False
    asked = default if options.grace_period_s is None else options.grace_period_s
    return (asked if asked >= 0 else 1), False


def _mark_graceful(meta: dict[str, Any], grace: int, now: float) -> None:
    if meta.get("deletionTimestamp"):  # a second, shorter request counts from the first one's moment
        began = seconds(meta["deletionTimestamp"]) - (meta.get("deletionGracePeriodSeconds") or 0)
    else:
        began = now
        _bump_generation(meta)
    meta["deletionTimestamp"] = rfc3339(began + grace)
    meta["deletionGracePeriodSeconds"] = grace


def _mark_now(meta: dict[str, Any], now: float) -> None:
    if meta.get("deletionGracePeriodSeconds") is None:
        _bump_generation(meta)
    marked = meta.get("deletionTimestamp")
    if not marked or seconds(marked) > now:
        meta["deletionTimestamp"] = rfc3339(now)
    meta["deletionGracePeriodSeconds"] = 0


def _bump_generation(meta: dict[str, Any]) -> None:
    """Controllers must take notice of a deletion, as of any change of what is wanted."""
    if meta.get("generation"):
        meta["generation"] += 1


def gc_finalizers(resource: Resource, meta: dict[str, Any], propagation: str) -> list[str]:
    """The finalizers with those of the garbage collector set or removed as the policy wants: an explicit
    policy first, then what the object already carries, then the resource's default."""
    current = items(meta, "finalizers")
    if not propagation:
        carried = ORPHAN if ORPHAN_FINALIZER in current else FOREGROUND
        has_one = ORPHAN_FINALIZER in current or FOREGROUND_FINALIZER in current
        propagation = carried if has_one else resource.strategy.default_propagation
    wanted = {ORPHAN: ORPHAN_FINALIZER, FOREGROUND: FOREGROUND_FINALIZER}.get(propagation)
    kept = [
        name for name in current if name == wanted or name not in (ORPHAN_FINALIZER, FOREGROUND_FINALIZER)
    ]
    return kept if wanted is None or wanted in kept else [*kept, wanted]


def _set_finalizers(meta: dict[str, Any], finalizers: list[str]) -> None:
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)


def deletion_complete(resource: Resource, new: Object, old: Object) -> bool:
    """Whether an update that goes from old to new must remove the object: it was being deleted, its grace is
    over, and nothing holds it any more."""
    old_meta = section(old, "metadata")
    if not old_meta.get("deletionTimestamp") or (old_meta.get("deletionGracePeriodSeconds") or 0) > 0:
        return False
    return not items(section(new, "metadata"), "finalizers") and not resource.strategy.deletion_held(new)
