"""Subresources that are no plain part of their object: scale, binding, eviction, finalize.

Sources: pkg/registry/apps/deployment/storage, pkg/registry/core/pod/storage (BindingREST, EvictionREST),
pkg/registry/core/namespace/storage (FinalizeREST).
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from raftkube.api import codecs, fields
from raftkube.api.deletion import DeleteOptions
from raftkube.api.metadata import metadata_of
from raftkube.api.objects import copy_json, items, section
from raftkube.api.resource import Object
from raftkube.api.scale import SCALE_FORM, scale_of, validate_scale, with_scale
from raftkube.api.status import ApiError, conflict, invalid
from raftkube.api.timestamps import rfc3339
from raftkube.apiserver.admission import check_name
from raftkube.apiserver.call import Call
from raftkube.apiserver.core.patches import apply_patch
from raftkube.apiserver.core.query import WriteOptions, write_options
from raftkube.apiserver.handlers.delete import delete_object
from raftkube.apiserver.handlers.write import (
    check_preconditions,
    decode_body,
    finish,
    replacement,
    respond,
)
from raftkube.apiserver.object_store import Change
from raftkube.apiserver.rendering import OBJECTS, other_kind_response, represent
from raftkube.apiserver.stored import Stored
from raftkube.net.http import Response

_SCALE_SCHEMA: Final = "io.k8s.api.autoscaling.v1.Scale"
_BINDING_SCHEMA: Final = "io.k8s.api.core.v1.Binding"
_EVICTION_SCHEMA: Final = "io.k8s.api.policy.v1.Eviction"
_CREATED: Final[dict[str, Any]] = {
    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
}  # fmt: skip


def _decode(call: Call, options: WriteOptions, api_version: str, kind: str, schema: str) -> Object:
    decoded = codecs.decode_object(
        call.request.body,
        call.headers.get("content-type"),
        api_version=api_version,
        kind=kind,
        schema=schema,
    )
    codecs.enforce_strict(decoded, options.field_validation)
    return decoded.obj


async def get_scale(call: Call) -> Response:
    """The Scale of a workload."""
    stored = await call.parts.store.read(call.resource, call.info.namespace, call.info.name)
    return _respond(call, stored)


async def update_scale(call: Call) -> Response:
    """PUT of a Scale."""
    represent(call.headers.get("accept"), OBJECTS)
    options = write_options(call.params, "UpdateOptions")
    scale = _decode(call, options, "autoscaling/v1", "Scale", _SCALE_SCHEMA)

    def decide(stored: Stored) -> Change | None:
        return _scaled(call, stored, scale)

    return await _change_scale(call, options, decide)


async def patch_scale(call: Call) -> Response:
    """PATCH of a Scale."""
    represent(call.headers.get("accept"), OBJECTS)
    options = write_options(call.params, "PatchOptions")
    media = codecs.patch_type(call.headers.get("content-type"))
    body = codecs.decode_patch(call.request.body)

    def decide(stored: Stored) -> Change | None:
        scale = apply_patch(scale_of(stored.obj), body, media_type=media, schema=_SCALE_SCHEMA)
        codecs.accept_patched(scale, body, schema=_SCALE_SCHEMA, field_validation=options.field_validation)
        return _scaled(call, stored, scale)

    return await _change_scale(call, options, decide)


def _scaled(call: Call, stored: Stored, scale: Object) -> Change | None:
    errors = validate_scale(scale)
    if errors:
        raise invalid("autoscaling", "Scale", stored.name, errors)
    return replacement(call, copy_json(with_scale(stored.obj, scale)), stored)


async def _change_scale(call: Call, options: WriteOptions, decide: Any) -> Response:
    guard = call.guard(dry_run=options.dry_run)
    changed = await call.parts.store.change(call.resource, call.info.namespace, call.info.name, decide, guard)
    return _respond(call, changed.stored)


def _respond(call: Call, stored: Stored) -> Response:
    form = represent(call.headers.get("accept"), OBJECTS)
    return other_kind_response(
        SCALE_FORM, scale_of(stored.obj), form, now=call.parts.clock.wall(),
        include_object=call.params.get("includeObject", ""),
    )  # fmt: skip


async def bind(call: Call) -> Response:
    """POST of a Binding: a pod gets its node, once."""
    represent(call.headers.get("accept"))
    options = write_options(call.params, "CreateOptions")
    binding = _decode(call, options, "v1", "Binding", _BINDING_SCHEMA)
    check_name(str(section(binding, "metadata").get("name") or ""), call.info.name)
    target = section(binding, "target")
    errors = []
    if target.get("kind") not in (None, "", "Node"):
        errors.append(fields.not_supported("target.kind", target["kind"], ["Node", "<empty>"]))
    if not target.get("name"):
        errors.append(fields.required("target.name"))
    if errors:
        raise invalid("", "Binding", call.info.name, errors)

    def decide(stored: Stored) -> Change | None:
        return Change(_bound(call, stored, binding))

    guard = call.guard(dry_run=options.dry_run)
    await call.parts.store.change(call.resource, call.info.namespace, call.info.name, decide, guard)
    return Response(201, orjson.dumps(_CREATED) + b"\n")


def _bound(call: Call, stored: Stored, binding: Object) -> Object:
    pod: Object = copy_json(stored.obj)
    name = stored.name
    spec, node = section(pod, "spec"), binding["target"]["name"]
    preconditions = {k: v for k, v in section(binding, "metadata").items() if k in ("uid", "resourceVersion")}
    check_preconditions(call.resource, {"metadata": preconditions}, pod)
    if pod["metadata"].get("deletionTimestamp"):
        raise _cannot_bind(name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise _cannot_bind(name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if items(spec, "schedulingGates"):
        raise _cannot_bind(name, f"pod {name} has non-empty .spec.schedulingGates")
    spec["nodeName"] = node
    annotations = section(section(binding, "metadata"), "annotations")
    if annotations:
        pod["metadata"]["annotations"] = {**section(pod["metadata"], "annotations"), **annotations}
    _set_scheduled(pod, rfc3339(call.parts.clock.wall()))
    return pod


def _cannot_bind(name: str, why: str) -> ApiError:
    return conflict("", "pods/binding", name, why)


def _set_scheduled(pod: Object, now: str) -> None:
    status = pod.setdefault("status", {})
    others = [item for item in items(status, "conditions") if item.get("type") != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}
    status["conditions"] = [*others, scheduled]


async def evict(call: Call) -> Response:
    """POST of an Eviction: a delete (disruption budgets are not kept yet)."""
    represent(call.headers.get("accept"))
    options = write_options(call.params, "CreateOptions")
    eviction = _decode(call, options, "policy/v1", "Eviction", _EVICTION_SCHEMA)
    check_name(str(section(eviction, "metadata").get("name") or ""), call.info.name)
    wanted = DeleteOptions.parse(section(eviction, "deleteOptions"))
    dry_run = options.dry_run or wanted.dry_run
    await delete_object(call, call.info.name, wanted, call.guard(dry_run=dry_run))
    return Response(201, orjson.dumps(_CREATED) + b"\n")


async def finalize(call: Call) -> Response:
    """PUT of a Namespace whose spec.finalizers are what is left; the last one removes it."""
    options = write_options(call.params, "UpdateOptions")
    body, warnings = decode_body(call, options)
    check_name(str(metadata_of(body).get("name") or ""), call.info.name)
    left = items(section(body, "spec"), "finalizers")

    def decide(stored: Stored) -> Change | None:
        check_preconditions(call.resource, body, stored.obj)
        new = copy_json(stored.obj)
        new["spec"] = {**section(new, "spec"), "finalizers": list(left)}
        return finish(call, new, stored)

    guard = call.guard(dry_run=options.dry_run)
    changed = await call.parts.store.change(call.resource, call.info.namespace, call.info.name, decide, guard)
    return respond(call, changed.stored, 200, warnings)
