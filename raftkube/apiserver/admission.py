"""What is checked on a write beyond the object itself: its namespace lives, a node stays within its own,
a Lease with a store lease keeps its holder.

Sources: k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle, plugin/pkg/admission/noderestriction,
and for Leases the rules of leader election.
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.objects import items, section
from raftkube.api.registry import find
from raftkube.api.resource import Object, Resource
from raftkube.api.status import ApiError, FieldError, bad_request, forbidden, invalid, not_found
from raftkube.apiserver.core.authorization import User
from raftkube.apiserver.object_store import ObjectStore
from raftkube.apiserver.stored import STORE_LEASE_ANNOTATION, Stored, decode, has_store_lease
from raftkube.apiserver.transaction import Check
from raftkube.wire.store import Compare, KeyValue

_UNDELETABLE: Final = frozenset(("default", "kube-system", "kube-public"))
_LEASE_TTL_MAX_S: Final = 3_600


def namespace_resource() -> Resource:
    """The descriptor of Namespace."""
    resource = find("", "v1", "namespaces")
    assert resource is not None
    return resource


async def live_namespace(
    store: ObjectStore, cached: Stored | None, resource: Resource, namespace: str, name: str
) -> Check:
    """The check that a new object's namespace exists and is not being deleted, for its transaction.

    Raises ApiError: 404 no such namespace, 403 it is being deleted.
    """
    key = namespace_resource().key("", namespace).encode()
    found = cached
    if found is None or _terminating(found.obj):
        found = await store.find(key)
    error = _namespace_error(found, resource, namespace, name)
    if error is not None:
        raise error
    assert found is not None

    def refuse(kv: KeyValue | None) -> ApiError | None:
        return _namespace_error(decode(kv) if kv else None, resource, namespace, name)

    return Check(Compare(key, "mod", "=", found.revision), refuse)


def _terminating(namespace: Object) -> bool:
    return bool(namespace["metadata"].get("deletionTimestamp"))


def _namespace_error(found: Stored | None, resource: Resource, namespace: str, name: str) -> ApiError | None:
    if found is None:
        return not_found("", "namespaces", namespace)
    if not _terminating(found.obj):
        return None
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    error = forbidden(resource.group, resource.plural, name, why)
    text = f"namespace {namespace} is being terminated"
    error.details["causes"] = [
        {"reason": "NamespaceTerminating", "message": text, "field": "metadata.namespace"}
    ]
    return error


def check_namespace_deletable(resource: Resource, name: str) -> None:
    """Raise ApiError 403 for the namespaces that a cluster cannot be without."""
    if (resource.group, resource.plural) == ("", "namespaces") and name in _UNDELETABLE:
        raise forbidden("", "namespaces", name, "this namespace may not be deleted")


def restrict_node(user: User, verb: str, resource: Resource, subresource: str, obj: Object) -> None:
    """Raise ApiError 403 where a kubelet reaches beyond its own node. obj: as it is stored, or the new one
    of a create."""
    node, name = user.node, obj["metadata"].get("name", "")
    if not node:
        return
    if resource.plural == "pods":
        if not user.owns_node(str(section(obj, "spec").get("nodeName") or "")):
            what = f"update {subresource} for" if subresource else verb
            why = f'node "{node}" can only {what} pods with spec.nodeName set to itself'
            raise forbidden("", "pods", name, why)
    elif resource.plural in ("nodes", "leases") and verb == "create" and not user.owns_node(name):
        why = f'node "{node}" is not allowed to create {resource.plural} of another node'
        raise forbidden(resource.group, resource.plural, name, why)


def refers_to(pod: Object, plural: str, name: str) -> bool:
    """Whether a pod names a ConfigMap or Secret anywhere."""
    return (plural, name) in _references(section(pod, "spec"))


def _references(spec: dict[str, Any]) -> set[tuple[str, str]]:
    found = {("secrets", item.get("name", "")) for item in items(spec, "imagePullSecrets")}
    for volume in items(spec, "volumes"):
        sources = [volume, *items(section(volume, "projected"), "sources")]
        for source in sources:
            secret = section(source, "secret")
            found.add(("secrets", secret.get("secretName") or secret.get("name") or ""))
            found.add(("configmaps", section(source, "configMap").get("name") or ""))
    for container in [*items(spec, "initContainers"), *items(spec, "containers")]:
        for item in items(container, "env"):
            value_from = section(item, "valueFrom")
            found.add(("secrets", section(value_from, "secretKeyRef").get("name") or ""))
            found.add(("configmaps", section(value_from, "configMapKeyRef").get("name") or ""))
        for item in items(container, "envFrom"):
            found.add(("secrets", section(item, "secretRef").get("name") or ""))
            found.add(("configmaps", section(item, "configMapRef").get("name") or ""))
    return found


def validate_store_lease(new: Object, old: Object | None) -> list[FieldError]:
    """The rules of a Lease that the store expires: it has a holder and a duration, and neither they nor
    the annotation change; to let go of it is to delete it."""
    annotation = f"metadata.annotations[{STORE_LEASE_ANNOTATION}]"
    if old is not None and has_store_lease(old) != has_store_lease(new):
        return [fields.forbidden(annotation, "it can be set only on creation, and never be removed")]
    if not has_store_lease(new):
        return []
    spec = section(new, "spec")
    if old is not None:
        old_spec = section(old, "spec")
        return [
            fields.invalid(f"spec.{name}", spec.get(name), f"{fields.IMMUTABLE} while {annotation} is set")
            for name in ("holderIdentity", "leaseDurationSeconds")
            if spec.get(name) != old_spec.get(name)
        ]
    errors: list[FieldError] = []
    if not spec.get("holderIdentity"):
        errors.append(fields.required("spec.holderIdentity", f"needed while {annotation} is set"))
    if not spec.get("leaseDurationSeconds"):
        errors.append(fields.required("spec.leaseDurationSeconds", f"needed while {annotation} is set"))
    elif spec["leaseDurationSeconds"] > _LEASE_TTL_MAX_S:
        text = f"must be at most {_LEASE_TTL_MAX_S} while {annotation} is set"
        errors.append(fields.invalid("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], text))
    return errors


def raise_if_any(resource: Resource, name: str, errors: list[FieldError]) -> None:
    """Raise ApiError 422 that lists all errors."""
    if errors:
        raise invalid(resource.group, resource.kind, name, errors)


def check_name(body_name: str, url_name: str) -> None:
    """Raise ApiError 400: a body's name must be that of the URL."""
    if body_name and body_name != url_name:
        raise bad_request(
            f"the name of the object ({body_name}) does not match the name on the URL ({url_name})"
        )
