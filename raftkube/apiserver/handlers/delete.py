"""delete and deletecollection: now, or marked and left to finalizers, a grace period, a controller.

Source: k8s.io/apiserver/pkg/endpoints/handlers/delete.go, pkg/registry/generic/registry/store.go.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from raftkube.api import codecs
from raftkube.api.deletion import DeleteOptions, begin_deletion, check_preconditions
from raftkube.api.status import ApiError
from raftkube.apiserver.admission import check_namespace_deletable, restrict_node
from raftkube.apiserver.call import Call
from raftkube.apiserver.core.query import delete_body, list_options
from raftkube.apiserver.handlers.read import all_items, selection
from raftkube.apiserver.handlers.write import release, respond
from raftkube.apiserver.object_store import Change, Changed
from raftkube.apiserver.rendering import LISTS, OBJECTS, list_response, represent
from raftkube.apiserver.stored import Stored
from raftkube.apiserver.transaction import Guard
from raftkube.net.http import Response

# Kinds whose immediate deletion answers with the object (upstream's ReturnDeletedObject).
_RETURNED: Final = frozenset(("pods", "services", "serviceaccounts"))


def delete_options(call: Call) -> DeleteOptions:
    """Of the body, else of the query. Raises ApiError 400, 415 or 422."""
    body = codecs.decode_options(call.request.body, call.headers.get("content-type"))
    body.pop("kind", None)
    body.pop("apiVersion", None)
    return DeleteOptions.parse(body or delete_body(call.params))


async def delete(call: Call) -> Response:
    """DELETE of one object."""
    represent(call.headers.get("accept"), OBJECTS)
    options = delete_options(call)
    check_namespace_deletable(call.resource, call.info.name)
    changed = await delete_object(call, call.info.name, options, call.guard(dry_run=options.dry_run))
    if changed.removed and call.resource.plural not in _RETURNED:
        return Response(200, orjson.dumps(deleted_status(call, changed.stored)) + b"\n")
    return respond(call, changed.stored, 200)


async def delete_object(call: Call, name: str, options: DeleteOptions, guard: Guard) -> Changed:
    """Delete one object of the call's resource and namespace."""
    resource = call.resource

    def decide(stored: Stored) -> Change | None:
        check_preconditions(stored.obj, resource, uid=options.uid, resource_version=options.resource_version)
        restrict_node(call.user, "delete", resource, "", stored.obj)
        deletion = begin_deletion(resource, stored.obj, options, now=call.parts.clock.wall())
        if deletion.delete_now:
            return Change(deletion.obj, remove=True, writes=release(call, stored.obj))
        return Change(deletion.obj) if deletion.changed else None

    return await call.parts.store.change(resource, call.info.namespace, name, decide, guard)


def deleted_status(call: Call, stored: Stored) -> dict[str, Any]:
    """The Status that says what was deleted."""
    details = {"name": stored.name, "group": call.resource.group, "kind": call.resource.plural,
               "uid": stored.obj["metadata"].get("uid", "")}  # fmt: skip
    if not details["group"]:
        del details["group"]
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    }  # fmt: skip


async def delete_collection(call: Call) -> Response:
    """DELETE of all that a list would show; each item is a transaction, and fenced, of its own."""
    form = represent(call.headers.get("accept"), LISTS)
    options = delete_options(call)
    chosen = selection(call.resource, call.info.namespace, list_options(call.params, watch=False))
    page = await all_items(call, chosen)
    guard = call.guard(dry_run=options.dry_run)
    for stored in page.items:
        await _delete_item(call, stored, options, guard)
    metadata = {"resourceVersion": str(page.revision)}
    return list_response(call.resource, page.items, metadata, form, now=call.parts.clock.wall())


async def _delete_item(call: Call, stored: Stored, options: DeleteOptions, guard: Guard) -> None:
    """As it was listed: another object of the same name stays."""
    only_this = DeleteOptions(
        grace_period_s=options.grace_period_s,
        propagation=options.propagation,
        uid=stored.obj["metadata"]["uid"],
        dry_run=options.dry_run,
    )
    try:
        await delete_object(call, stored.name, only_this, guard)
    except ApiError as error:
        if error.reason != "NotFound" and not _replaced(error):
            raise


def _replaced(error: ApiError) -> bool:
    return error.reason == "Conflict" and "UID in precondition" in error.message
