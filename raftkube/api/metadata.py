"""What the API server sets and checks in metadata when an object is created or updated.

The order of a create: `strategy.default` → `prepare_new` (which calls `strategy.prepare_create`) →
`validation.validate_create`; of an update: default → `prepare_update` (calls `strategy.prepare_update`
or `prepare_status_update`) → `validation.validate_update`.
Source: k8s.io/apiserver/pkg/registry/rest/{create,update,meta}.go.
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.names import (
    NAME_FORMATS,
    dns_label_errors,
    qualified_name_errors,
    validate_annotations,
    validate_labels,
)
from raftkube.api.objects import items, section
from raftkube.api.resource import Object, Resource
from raftkube.api.status import FieldError, bad_request

ORPHAN_FINALIZER: Final = "orphan"
FOREGROUND_FINALIZER: Final = "foregroundDeletion"
SUFFIX_LENGTH: Final = 5
_GENERATED_BASE_MAX: Final = 63 - SUFFIX_LENGTH
_SERVER_SET: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
                      "generation", "selfLink", "managedFields")  # fmt: skip
_CARRIED: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
                   "generation")  # fmt: skip
_IMMUTABLE: Final = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp",
                     "deletionGracePeriodSeconds")  # fmt: skip
_PATH: Final = "metadata"


def metadata_of(obj: Object) -> dict[str, Any]:
    """The object's metadata, made if it has none. Raises ApiError 400: it is no object."""
    meta = obj.get("metadata")
    if meta is None:
        meta = obj["metadata"] = {}
    if not isinstance(meta, dict):
        raise bad_request("metadata must be an object with a name; write `metadata: {name: …}`")
    return meta


def match_namespace(meta: dict[str, Any], resource: Resource, namespace: str) -> None:
    """Put the request's namespace into metadata. Raises ApiError 400: the body names another."""
    own = meta.get("namespace") or ""
    if not resource.namespaced:
        meta.pop("namespace", None)
    elif own in ("", namespace):
        meta["namespace"] = namespace
    else:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def generate_name(base: str, suffix: str) -> str:
    """`base` cut so that with the suffix it fits an RFC 1123 label."""
    return base[:_GENERATED_BASE_MAX] + suffix


def prepare_new(
    obj: Object, resource: Resource, namespace: str, *, uid: str, now_rfc3339: str, suffix: str
) -> None:
    """Make `obj` ready to be stored for the first time, in place; defaults are already set.

    namespace: of the request ("" for cluster-scoped resources); suffix: five characters for generateName.
    Raises ApiError 400: namespace mismatch, or a resourceVersion is set.
    """
    meta = metadata_of(obj)
    match_namespace(meta, resource, namespace)
    if meta.pop("resourceVersion", None):
        raise bad_request("resourceVersion should not be set on objects to be created")
    for name in _SERVER_SET:
        meta.pop(name, None)
    _leave_out_empty(meta)
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = generate_name(meta["generateName"], suffix)
    meta["uid"] = uid
    meta["creationTimestamp"] = now_rfc3339
    if resource.strategy.generation:
        meta["generation"] = 1
    obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
    resource.strategy.prepare_create(obj)


def prepare_update(new: Object, old: Object, resource: Resource, *, subresource: str = "") -> None:
    """Carry over into `new`, in place, what an update may not change; move the generation.

    subresource "": status stays as it was (for kinds with that subresource); "status": all but status
    and some metadata stays as it was; any other (a namespace's `finalize`, a pod's `ephemeralcontainers`):
    status stays, and the kind's own hook for updates is left out.
    """
    meta, old_meta = metadata_of(new), old["metadata"]
    _carry_metadata(meta, old_meta)
    _leave_out_empty(meta)
    new["apiVersion"], new["kind"] = resource.api_version, resource.kind
    if subresource == "status":
        _keep_all_but_status(new, old)
        resource.strategy.prepare_status_update(new, old)
        return
    if resource.has_status:
        _keep(new, old, "status")
    if not subresource:
        resource.strategy.prepare_update(new, old)
    if resource.strategy.generation and new.get("spec") != old.get("spec"):
        meta["generation"] = max(meta.get("generation", 0), old_meta.get("generation", 0) + 1)


def _leave_out_empty(meta: dict[str, Any]) -> None:
    """The last label that was taken off takes `labels` along (Go's omitempty)."""
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        if name in meta and not meta[name]:
            del meta[name]


def _carry_metadata(meta: dict[str, Any], old_meta: dict[str, Any]) -> None:
    """Server-set fields come from the stored object, but a *different* uid or timestamp that the client
    sent stays, for validation to refuse (an update must not pass over to a re-created object)."""
    for name in ("selfLink", "managedFields", "generation"):
        meta.pop(name, None)
    for name in _CARRIED:
        if meta.get(name) is None and old_meta.get(name) is not None:
            meta[name] = old_meta[name]
    for name in ("name", "namespace"):
        if not meta.get(name) and old_meta.get(name):
            meta[name] = old_meta[name]


def _keep(new: Object, old: Object, key: str) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)


def _keep_all_but_status(new: Object, old: Object) -> None:
    for key in {*new, *old} - {"metadata", "status", "apiVersion", "kind"}:
        _keep(new, old, key)
    _keep(new["metadata"], old["metadata"], "ownerReferences")


def validate_metadata(obj: Object, resource: Resource) -> list[FieldError]:
    """All that is wrong with metadata by itself."""
    meta = section(obj, "metadata")
    name_errors = NAME_FORMATS[resource.strategy.name_format]
    errors: list[FieldError] = []
    name = meta.get("name") or ""
    if name:
        errors += fields.all_invalid(f"{_PATH}.name", name, name_errors(name))
    else:
        errors.append(fields.required(f"{_PATH}.name", "name or generateName is required"))
    errors += _validate_namespace(meta, resource)
    errors += fields.not_negative(f"{_PATH}.generation", meta.get("generation"))
    return errors + _validate_common(meta)


def _validate_namespace(meta: dict[str, Any], resource: Resource) -> list[FieldError]:
    namespace = meta.get("namespace") or ""
    if not resource.namespaced:
        return [fields.forbidden(f"{_PATH}.namespace", "not allowed on this type")] if namespace else []
    if not namespace:
        return [fields.required(f"{_PATH}.namespace")]
    return fields.all_invalid(f"{_PATH}.namespace", namespace, dns_label_errors(namespace))


def _validate_common(meta: dict[str, Any]) -> list[FieldError]:
    return [
        *validate_labels(section(meta, "labels"), f"{_PATH}.labels"),
        *validate_annotations(section(meta, "annotations"), f"{_PATH}.annotations"),
        *validate_owner_references(items(meta, "ownerReferences"), f"{_PATH}.ownerReferences"),
        *validate_finalizers(items(meta, "finalizers"), f"{_PATH}.finalizers"),
    ]


def validate_owner_references(references: list[Any], path: str) -> list[FieldError]:
    """Each names its owner in full; at most one is the controller."""
    errors: list[FieldError] = []
    controller = ""
    for reference in references:
        errors += _validate_owner_reference(reference, path)
        if reference.get("controller") is True:
            current = f"{reference.get('kind')}/{reference.get('name')}"
            if controller:
                errors.append(fields.invalid(path, references, _two_controllers(controller, current)))
            controller = controller or current
    return errors


def _two_controllers(first: str, second: str) -> str:
    return (
        'Only one reference can have Controller set to true. Found "true" in references for '
        f"{first} and {second}"
    )


def _validate_owner_reference(reference: dict[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    version = reference.get("apiVersion") or ""
    if not version.rpartition("/")[2]:
        errors.append(fields.invalid(f"{path}.apiVersion", version, "version must not be empty"))
    errors += [
        fields.invalid(f"{path}.{name}", "", "must not be empty")
        for name in ("kind", "name", "uid")
        if not reference.get(name)
    ]
    if (version, reference.get("kind")) == ("v1", "Event"):
        errors.append(fields.invalid(path, reference, "/v1, Kind=Event is disallowed from being an owner"))
    return errors


def validate_finalizers(finalizers: list[str], path: str) -> list[FieldError]:
    """Qualified names; orphan and foregroundDeletion exclude each other."""
    errors = [fields.invalid(path, name, text) for name in finalizers for text in qualified_name_errors(name)]
    if ORPHAN_FINALIZER in finalizers and FOREGROUND_FINALIZER in finalizers:
        text = f"finalizer {ORPHAN_FINALIZER} and {FOREGROUND_FINALIZER} cannot be both set"
        errors.append(fields.invalid(path, finalizers, text))
    return errors


def validate_metadata_update(new: Object, old: Object) -> list[FieldError]:
    """All that is wrong with going from old's metadata to new's."""
    meta, old_meta = section(new, "metadata"), section(old, "metadata")
    errors: list[FieldError] = []
    if old_meta.get("deletionTimestamp"):
        extra = sorted(set(items(meta, "finalizers")) - set(items(old_meta, "finalizers")))
        errors += _no_new_finalizers(extra)
    if (meta.get("generation") or 0) < (old_meta.get("generation") or 0):
        text = "must not be decremented"
        errors.append(fields.invalid(f"{_PATH}.generation", meta.get("generation"), text))
    for name in _IMMUTABLE:
        errors += fields.immutable(f"{_PATH}.{name}", meta.get(name), old_meta.get(name))
    return errors + _validate_common(meta)


def _no_new_finalizers(extra: list[str]) -> list[FieldError]:
    if not extra:
        return []
    names = ", ".join(fields.quoted(name) for name in extra)
    text = "no new finalizers can be added if the object is being deleted, found new finalizers "
    return [fields.forbidden(f"{_PATH}.finalizers", text + f"[]string{{{names}}}")]
