"""create, update and patch, of objects and of their status.

The order is upstream's: decode → default → prepare → admit → validate → transaction. A change is decided
on the stored object inside `ObjectStore.change`, which may ask several times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from raftkube.api import codecs
from raftkube.api.deletion import deletion_complete
from raftkube.api.fields import required
from raftkube.api.metadata import match_namespace, metadata_of, prepare_new, prepare_update
from raftkube.api.objects import copy_json
from raftkube.api.resource import Object, Resource
from raftkube.api.status import OBJECT_MODIFIED, ApiError, bad_request, conflict, not_found
from raftkube.api.timestamps import rfc3339
from raftkube.api.validation import validate_create, validate_status_update, validate_update
from raftkube.apiserver.admission import (
    check_name,
    live_namespace,
    namespace_resource,
    raise_if_any,
    restrict_node,
    validate_store_lease,
)
from raftkube.apiserver.call import Call
from raftkube.apiserver.core.patches import apply_patch
from raftkube.apiserver.core.query import WriteOptions, write_options
from raftkube.apiserver.object_store import Change
from raftkube.apiserver.rendering import OBJECTS, object_response, represent
from raftkube.apiserver.service_allocation import is_service
from raftkube.apiserver.stored import TOKEN_ANNOTATION, Stored
from raftkube.apiserver.transaction import Check, Write
from raftkube.net.http import Response
from raftkube.rng import name_suffix, uid

_GENERATED_NAME_ATTEMPTS: Final = 8


def decode_body(call: Call, options: WriteOptions) -> tuple[Object, list[str]]:
    """The object in a request's body, and the warnings about it. Raises ApiError 400 or 415."""
    resource = call.resource
    decoded = codecs.decode_object(
        call.request.body,
        call.headers.get("content-type"),
        api_version=resource.api_version,
        kind=resource.kind,
        schema=resource.schema,
    )
    return decoded.obj, codecs.enforce_strict(decoded, options.field_validation)


def respond(call: Call, stored: Stored, status: int, warnings: Sequence[str] = ()) -> Response:
    """The answer that shows one object."""
    return object_response(
        call.resource,
        stored,
        represent(call.headers.get("accept"), OBJECTS),
        now=call.parts.clock.wall(),
        status=status,
        warnings=warnings,
        include_object=call.params.get("includeObject", ""),
    )


async def create(call: Call) -> Response:
    """POST of a new object."""
    represent(call.headers.get("accept"), OBJECTS)  # what cannot be answered is not done
    options = write_options(call.params, "CreateOptions")
    obj, warnings = decode_body(call, options)
    stored = await create_object(call, obj, dry_run=options.dry_run)
    return respond(call, stored, 201, warnings)


async def create_object(call: Call, obj: Object, *, dry_run: bool) -> Stored:
    """Default, admit, validate and store a new object; `generateName` is tried again on a collision."""
    generated = not metadata_of(obj).get("name") and bool(metadata_of(obj).get("generateName"))
    for attempt in range(_GENERATED_NAME_ATTEMPTS):
        try:
            return await _create_once(call, copy_json(obj), dry_run=dry_run)
        except ApiError as error:
            last = attempt + 1 == _GENERATED_NAME_ATTEMPTS
            if error.reason != "AlreadyExists" or not generated or last:
                raise
    raise AssertionError("the last attempt returns or raises")


async def _create_once(call: Call, obj: Object, *, dry_run: bool) -> Stored:
    resource, parts, namespace = call.resource, call.parts, call.info.namespace
    resource.strategy.default(obj)
    now, suffix = rfc3339(parts.clock.wall()), name_suffix(parts.rng)
    own_namespace = namespace if resource.namespaced else ""
    prepare_new(obj, resource, own_namespace, uid=uid(parts.rng), now_rfc3339=now, suffix=suffix)
    _strip_token(obj)
    name = str(obj["metadata"].get("name") or "")
    restrict_node(call.user, "create", resource, "", obj)
    raise_if_any(resource, name, [
        *validate_create(resource, obj),
        *(validate_store_lease(obj, None) if resource.plural == "leases" else ()),
        *(parts.allocations.check(obj) if is_service(resource) else ()),
    ])  # fmt: skip
    asked_spec, first = obj.get("spec"), True

    async def propose() -> Change:
        nonlocal first
        checks: list[Check] = []
        writes: tuple[Write, ...] = ()
        if resource.namespaced:
            cached = _cached_namespace(call, namespace) if first else None
            checks.append(await live_namespace(parts.store, cached, resource, namespace, name))
        if is_service(resource):
            obj["spec"] = copy_json(asked_spec)  # what was chosen in a former attempt was taken
            claimed, writes = parts.allocations.allocate(obj)
            checks += claimed
        first = False
        return Change(obj, checks=tuple(checks), writes=writes)

    guard = call.guard(dry_run=dry_run, created=name)
    return await parts.store.create(resource, own_namespace, name, propose, guard)


def _cached_namespace(call: Call, namespace: str) -> Stored | None:
    resource = namespace_resource()
    return call.parts.cache.of(resource).get(resource.key("", namespace).encode())


async def update(call: Call, subresource: str = "") -> Response:
    """PUT of an object, or of its status; some kinds are created by it."""
    represent(call.headers.get("accept"), OBJECTS)
    options = write_options(call.params, "UpdateOptions")
    obj, warnings = decode_body(call, options)
    meta = metadata_of(obj)
    check_name(str(meta.get("name") or ""), call.info.name)
    meta["name"] = call.info.name
    if call.resource.namespaced:
        match_namespace(meta, call.resource, call.info.namespace)

    def decide(stored: Stored) -> Change | None:
        return replacement(call, copy_json(obj), stored, subresource)

    guard = call.guard(dry_run=options.dry_run)
    try:
        changed = await call.parts.store.change(
            call.resource, call.info.namespace, call.info.name, decide, guard
        )
    except ApiError as error:
        if not _may_create(call, obj, subresource, error):
            raise
        return respond(call, await create_object(call, obj, dry_run=options.dry_run), 201, warnings)
    return respond(call, changed.stored, 200, warnings)


def _may_create(call: Call, obj: Object, subresource: str, error: ApiError) -> bool:
    """Whether a PUT of what is not there creates it. One that names a version or uid does not: it means
    the object that has gone (a leader whose Lease expired must not get it back by renewing)."""
    absent = error.reason == "NotFound" and error.details.get("kind") == call.resource.plural
    meta = obj["metadata"]
    return (
        absent
        and call.resource.strategy.create_on_update
        and not subresource
        and not meta.get("resourceVersion")
        and not meta.get("uid")
    )


async def patch(call: Call, subresource: str = "") -> Response:
    """PATCH of an object or its status: JSON, merge or strategic merge patch."""
    represent(call.headers.get("accept"), OBJECTS)
    options = write_options(call.params, "PatchOptions")
    media = codecs.patch_type(call.headers.get("content-type"))
    body = codecs.decode_patch(call.request.body)
    warnings: list[str] = []

    def decide(stored: Stored) -> Change | None:
        nonlocal warnings
        patched = apply_patch(stored.obj, body, media_type=media, schema=call.resource.schema)
        warnings = codecs.accept_patched(
            patched, body, schema=call.resource.schema, field_validation=options.field_validation
        )
        _check_identity(call, patched)
        return replacement(call, patched, stored, subresource)

    guard = call.guard(dry_run=options.dry_run)
    changed = await call.parts.store.change(call.resource, call.info.namespace, call.info.name, decide, guard)
    return respond(call, changed.stored, 200, warnings)


def _check_identity(call: Call, patched: Object) -> None:
    """A patch may not turn an object into another one. Raises ApiError 400."""
    resource, meta = call.resource, metadata_of(patched)
    for member, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        if patched.get(member) != wanted:
            raise bad_request(f"a patch may not change {member} ({wanted}) to {patched.get(member)}")
    check_name(str(meta.get("name") or ""), call.info.name)
    if resource.namespaced:
        match_namespace(meta, resource, call.info.namespace)


def replacement(call: Call, new: Object, stored: Stored, subresource: str = "") -> Change | None:
    """The change from the stored object to `new` (which is taken over), or None if there is none.

    Raises ApiError: 409 a precondition in `new` does not hold, 422 it is invalid.
    """
    resource, old = call.resource, stored.obj
    check_preconditions(resource, new, old)
    restrict_node(call.user, call.info.verb, resource, subresource, old)
    _strip_token(new)
    resource.strategy.default(new)
    prepare_update(new, old, resource, subresource=subresource)
    if subresource:
        errors = validate_status_update(resource, new, old)
    else:
        errors = validate_update(resource, new, old)
        if resource.plural == "leases":
            errors += validate_store_lease(new, old)
    raise_if_any(resource, stored.name, errors)
    return finish(call, new, stored)


def finish(call: Call, new: Object, stored: Stored) -> Change | None:
    """The change to `new`, which is valid: nothing, a removal that was only waited for, or a write."""
    resource, old = call.resource, stored.obj
    if deletion_complete(resource, new, old):
        return Change(new, remove=True, writes=release(call, old))
    checks, writes = _allocated(call, new, old)
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
    token = (old["metadata"].get("annotations") or {}).get(TOKEN_ANNOTATION)
    if token is not None:
        new["metadata"].setdefault("annotations", {})[TOKEN_ANNOTATION] = token
    return None if new == old else Change(new, checks=checks, writes=writes)


def release(call: Call, obj: Object) -> tuple[Write, ...]:
    """What else goes when an object is removed."""
    return call.parts.allocations.release(obj) if is_service(call.resource) else ()


def _allocated(call: Call, new: Object, old: Object) -> tuple[tuple[Check, ...], tuple[Write, ...]]:
    """A Service that comes to need, or needs no longer, an address or node ports."""
    if not is_service(call.resource):
        return (), ()
    allocations = call.parts.allocations
    raise_if_any(call.resource, old["metadata"]["name"], allocations.check(new))
    return allocations.allocate(new, old)


def check_preconditions(resource: Resource, new: Object, old: Object) -> None:
    """A resourceVersion or uid in an update means that very object. Raises ApiError 409, or 422 where one
    is needed."""
    meta, old_meta = metadata_of(new), old["metadata"]
    name = old_meta["name"]
    sent = meta.get("resourceVersion") or ""
    if not sent and not resource.strategy.unconditional_update and not meta.get("uid"):
        error = required("metadata.resourceVersion", "must be specified for an update")
        raise_if_any(resource, name, [error])
    if sent and sent != old_meta["resourceVersion"]:
        raise conflict(resource.group, resource.plural, name, OBJECT_MODIFIED)
    if meta.get("uid") and meta["uid"] != old_meta["uid"]:
        why = (
            f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {old_meta['uid']}"
        )
        raise conflict(resource.group, resource.plural, name, why)


def _strip_token(obj: Object) -> None:
    annotations = obj["metadata"].get("annotations")
    if annotations and TOKEN_ANNOTATION in annotations:
        del annotations[TOKEN_ANNOTATION]


def gone(call: Call) -> ApiError:
    """404 for the object of the call."""
    return not_found(call.resource.group, call.resource.plural, call.info.name)
