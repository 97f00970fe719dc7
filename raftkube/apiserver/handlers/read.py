"""get and list.

A list without resourceVersion is linearizable: the cache first catches up with the store. Pages after the
first come from the cache, too, as it was at the first one's revision, once the store has said that this
revision is not compacted. Where the cache's log does not go back so far they come from the store itself at
that revision, as do exact revisions.
Source: k8s.io/kubernetes API concepts ("Resource versions"), k8s.io/apiserver/pkg/storage/cacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import trio

from raftkube.api.field_selectors import FieldSelector, FieldTerm, parse_field_selector
from raftkube.api.resource import Resource
from raftkube.api.selectors import LabelSelector, parse_label_selector
from raftkube.api.status import ApiError, expired, not_found, timeout
from raftkube.apiserver.call import Call
from raftkube.apiserver.core import continuation
from raftkube.apiserver.core.continuation import Continuation, continuation_expired
from raftkube.apiserver.core.query import MATCH_EXACT, ListOptions, list_options, parse_resource_version
from raftkube.apiserver.errors import from_store
from raftkube.apiserver.past import page_at
from raftkube.apiserver.rendering import LISTS, OBJECTS, list_response, object_response, represent
from raftkube.apiserver.stored import Stored, decode
from raftkube.errors import Compacted, FutureRevision, StoreError
from raftkube.net.http import Response
from raftkube.wire.store import Range, prefix_end

FRESH_TIMEOUT_S: Final = 3.0
_STORE_PAGE: Final = 500


class Selection(NamedTuple):
    """What of a resource a list or watch shows."""

    prefix: bytes
    labels: LabelSelector
    fields: FieldSelector

    @property
    def everything(self) -> bool:
        """Whether nothing under the prefix is left out."""
        return self.labels.empty and self.fields.empty

    def matches(self, stored: Stored) -> bool:
        """Whether an object is shown (its key's prefix is checked elsewhere)."""
        return self.labels.matches(stored.obj["metadata"].get("labels")) and self.fields.matches(stored.obj)


def selection(resource: Resource, namespace: str, options: ListOptions, name: str = "") -> Selection:
    """Of a request; `name` is one in the path. Raises ApiError 400: a selector that is none."""
    fields = parse_field_selector(options.field_selector, resource)
    if name:
        fields = FieldSelector((*fields.terms, _name_term(name)))
    prefix = resource.key_prefix(namespace if resource.namespaced else "").encode()
    return Selection(prefix, parse_label_selector(options.label_selector), fields)


def _name_term(name: str) -> FieldTerm:
    return FieldTerm("metadata.name", name, False, lambda obj: str(obj["metadata"]["name"]))


def too_large_resource_version(wanted: int, current: int) -> ApiError:
    """504: that revision does not exist yet, as far as this server knows."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return timeout(
        f"Too large resource version: {wanted}, current: {current}", retry_after_s=1, causes=[cause]
    )


async def wait_not_older(call: Call, revision: int) -> None:
    """Until the cache is at `revision`. Raises ApiError 504: the store itself has not reached it."""
    cache = call.parts.cache
    if revision > cache.revision:
        with trio.move_on_after(FRESH_TIMEOUT_S):
            await cache.fresh()
    if revision > cache.revision:
        raise too_large_resource_version(revision, cache.revision)


async def wait_fresh(call: Call) -> None:
    """Until the cache holds all that was committed before. Raises ApiError 504: the store is silent."""
    if not await _is_fresh(call):
        raise timeout("the store did not answer in time; nothing was read", retry_after_s=1)


async def get(call: Call) -> Response:
    """One object: the newest, or with resourceVersion from the cache, not older than that."""
    form = represent(call.headers.get("accept"), OBJECTS)
    stored = await _find(call)
    include = call.params.get("includeObject", "")
    return object_response(call.resource, stored, form, now=call.parts.clock.wall(), include_object=include)


async def _find(call: Call) -> Stored:
    info, resource = call.info, call.resource
    text = call.params.get("resourceVersion")
    if not text:
        return await call.parts.store.read(resource, info.namespace, info.name)
    await wait_not_older(call, parse_resource_version(text))
    found = call.parts.cache.of(resource).get(resource.key(info.namespace, info.name).encode())
    if found is None:
        raise not_found(resource.group, resource.plural, info.name)
    return found


class Page(NamedTuple):
    """A part of a list. next_start: the store key to go on from, if any; remaining: how many follow."""

    items: Sequence[Stored]
    revision: int
    next_start: bytes | None = None
    remaining: int | None = None


async def list_(call: Call) -> Response:
    """A list, whole or in pages."""
    form = represent(call.headers.get("accept"), LISTS)
    options = list_options(call.params, watch=False)
    chosen = selection(call.resource, call.info.namespace, options)
    page = await _page(call, options, chosen)
    include = call.params.get("includeObject", "")
    metadata = _metadata(page, chosen)
    return list_response(
        call.resource, page.items, metadata, form, now=call.parts.clock.wall(), include_object=include
    )


def _metadata(page: Page, chosen: Selection) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": str(page.revision)}
    if page.next_start is not None:
        token = Continuation(page.revision, page.next_start)
        metadata["continue"] = continuation.encode(token, chosen.prefix.decode())
        if page.remaining and chosen.everything:
            metadata["remainingItemCount"] = page.remaining
    return metadata


async def _page(call: Call, options: ListOptions, chosen: Selection) -> Page:
    if options.continue_:
        return await _continued(call, options, chosen)
    wanted = options.resource_version
    if options.match == MATCH_EXACT and wanted:
        return await _from_store(call, chosen, chosen.prefix, revision=wanted, limit=options.limit)
    if wanted is None:
        if not await _is_fresh(call):
            return await _from_store(call, chosen, chosen.prefix, revision=0, limit=options.limit)
    else:
        await wait_not_older(call, wanted)
    return _from_cache(call, chosen, options.limit)


async def all_items(call: Call, chosen: Selection) -> Page:
    """Everything selected, as it is now."""
    if await _is_fresh(call):
        return _from_cache(call, chosen, 0)
    return await _from_store(call, chosen, chosen.prefix, revision=0, limit=0)


async def _is_fresh(call: Call) -> bool:
    with trio.move_on_after(FRESH_TIMEOUT_S) as scope:
        await call.parts.cache.fresh()
    return not scope.cancelled_caught


def _from_cache(call: Call, chosen: Selection, limit: int) -> Page:
    """No await here: objects and revision belong together."""
    cache = call.parts.cache
    found: Sequence[Stored] = list(cache.of(call.resource).select(chosen.prefix))
    if not chosen.everything:
        found = list(filter(chosen.matches, found))
    if not limit or len(found) <= limit:
        return Page(found, cache.revision)
    return Page(found[:limit], cache.revision, found[limit].key, len(found) - limit)


async def _continued(call: Call, options: ListOptions, chosen: Selection) -> Page:
    prefix = chosen.prefix.decode()
    token = continuation.decode(options.continue_, prefix)
    revision = 0 if token.revision == continuation.INCONSISTENT else token.revision
    try:
        page = await _from_past(call, chosen, token.start, revision=revision, limit=options.limit)
        if page is not None:
            return page
        return await _read_store(call, chosen, token.start, revision=revision, limit=options.limit)
    except Compacted as error:
        raise continuation_expired(token, prefix) from error
    except FutureRevision as error:
        raise too_large_resource_version(revision, int(error.fields.get("revision", 0))) from error
    except StoreError as error:
        raise from_store(error) from error


async def _from_past(
    call: Call, chosen: Selection, start: bytes, *, revision: int, limit: int
) -> Page | None:
    """A page out of the cache at an earlier revision; None if only the store can tell. Raises StoreError."""
    cache = call.parts.cache
    if not revision or revision > cache.revision:
        return None
    await call.parts.storage.range(Range(start, revision=revision))  # Compacted, as the page itself would be
    end = prefix_end(chosen.prefix)
    found = page_at(cache.of(call.resource), start, end, revision=revision, limit=limit, keep=chosen.matches)
    return None if found is None else Page(found.items, revision, found.next_start, found.remaining)


async def _from_store(call: Call, chosen: Selection, start: bytes, *, revision: int, limit: int) -> Page:
    try:
        return await _read_store(call, chosen, start, revision=revision, limit=limit)
    except Compacted as error:
        raise expired(f"The resourceVersion for the provided list is too old: {error.message}") from error
    except FutureRevision as error:
        raise too_large_resource_version(revision, int(error.fields.get("revision", 0))) from error
    except StoreError as error:
        raise from_store(error) from error


async def _read_store(call: Call, chosen: Selection, start: bytes, *, revision: int, limit: int) -> Page:
    """A page at a revision (0: the newest), read in pieces that are pinned to one revision."""
    end, items = prefix_end(chosen.prefix), list[Stored]()
    keep: Callable[[Stored], bool] = chosen.matches
    while True:
        wanted = Range(start, end, revision=revision, limit=limit - len(items) if limit else _STORE_PAGE)
        found = await call.parts.storage.range(wanted)
        revision = revision or found.revision
        items += filter(keep, map(decode, found.kvs))
        if not found.more:
            return Page(items, revision)
        start = found.kvs[-1].key + b"\x00"
        if limit and len(items) >= limit:
            return Page(items, revision, start, found.count - len(found.kvs))
