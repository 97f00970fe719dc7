"""Objects, lists and events as bytes, in the form that the client asked for.

The JSON of an object is encoded once and spliced into lists and events; the forms of an event are kept
with it and shared by all who watch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from raftkube.api import codecs
from raftkube.api.negotiation import LIST_FORMS, OBJECT_FORMS, Representation, Transform, negotiate
from raftkube.api.resource import Object, Resource
from raftkube.api.status import ApiError
from raftkube.api.tables import check_include_object, column_definitions, partial_metadata, table
from raftkube.apiserver.cache import CacheEvent
from raftkube.apiserver.stored import Stored
from raftkube.net.http import Response

OBJECTS: Final = frozenset(form for form in OBJECT_FORMS if form.version == "v1")
LISTS: Final = frozenset(form for form in LIST_FORMS if form.version == "v1")
WATCHES: Final = OBJECTS | LISTS
_PLAIN: Final[frozenset[Transform]] = frozenset()
ListMetadata = dict[str, Any]


def represent(accept: str | None, allowed: frozenset[Transform] = _PLAIN) -> Representation:
    """The form of the answer. Raises ApiError 406."""
    return negotiate(accept, allowed)


def warning_headers(warnings: Sequence[str]) -> list[tuple[str, str]]:
    """RFC 7234 §5.5 warnings, as upstream sends them."""
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in warnings)
    return [("Warning", f'299 - "{text}"') for text in escaped]


def object_response(
    resource: Resource,
    stored: Stored,
    form: Representation,
    *,
    now: float,
    status: int = 200,
    warnings: Sequence[str] = (),
    include_object: str = "",
) -> Response:
    """One object."""
    if form.is_table:
        include = check_include_object(include_object)
        metadata = {"resourceVersion": stored.obj["metadata"].get("resourceVersion", "")}
        body = orjson.dumps(table(resource, [stored.obj], now, include, metadata))
    else:
        body = stored.metadata_json if form.is_metadata else stored.json
    return _response(status, body, form, warning_headers(warnings))


def other_kind_response(
    kind: Resource, obj: Object, form: Representation, *, now: float, include_object: str = ""
) -> Response:
    """An object that is not stored as such: a Scale."""
    if form.is_table:
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        obj = table(kind, [obj], now, check_include_object(include_object), metadata)
    elif form.is_metadata:
        obj = partial_metadata(obj)
    return _response(200, orjson.dumps(obj), form, [])


def list_response(
    resource: Resource,
    items: Sequence[Stored],
    metadata: ListMetadata,
    form: Representation,
    *,
    now: float,
    include_object: str = "",
) -> Response:
    """A list; `metadata` is its resourceVersion, continue and remainingItemCount."""
    if form.is_table:
        include = check_include_object(include_object)
        body = orjson.dumps(table(resource, (item.obj for item in items), now, include, metadata))
    elif form.is_metadata:
        kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
        return _list_of(kind, version, metadata, [item.metadata_json for item in items], form)
    else:
        kind, version = f"{resource.kind}List", resource.api_version
        return _list_of(kind, version, metadata, [item.json for item in items], form)
    return _response(200, body, form, [])


def _list_of(
    kind: str, api_version: str, metadata: ListMetadata, items: list[bytes], form: Representation
) -> Response:
    """The items go out as they are: joining and copying them would cost more than encrypting them."""
    head = orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})[:-1] + b',"items":['
    if form.media == codecs.YAML:
        return _response(200, head + b",".join(items) + b"]}", form, [])
    pieces = [b","] * (2 * len(items))
    pieces[::2] = items
    pieces[-1:] = [b"]}\n"]
    return Response(200, head, codecs.JSON, pieces=pieces)


def _response(status: int, body: bytes, form: Representation, headers: list[tuple[str, str]]) -> Response:
    if form.media == codecs.YAML:
        body = codecs.encode(orjson.loads(body), codecs.YAML)
        return Response(status, body, codecs.YAML, headers)
    return Response(status, body + b"\n", codecs.JSON, headers)


class EventEncoder:
    """The events of one watch. `header` is true until the first Table: later ones carry no columns."""

    def __init__(self, resource: Resource, form: Representation, include_object: str) -> None:
        self._resource = resource
        self._form = form
        self._include = check_include_object(include_object) if form.is_table else ""
        self.header = form.is_table

    def event(self, event: CacheEvent, kind: str, stored: Stored, now: float) -> bytes:
        """One line. The bytes are shared with every other watch of the same form."""
        key = (kind, self._form.is_table, self._form.is_metadata, self._include, self.header)
        line = event.forms.get(key)
        if line is None:
            line = event.forms[key] = self._line(kind, stored, now)
        self.header = False
        return line

    def state(self, stored: Stored, now: float) -> bytes:
        """The line of an object that exists when the watch begins."""
        line = self._line("ADDED", stored, now)
        self.header = False
        return line

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        """A bookmark says: everything up to `revision` was delivered."""
        metadata: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj: Object = {
            "kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": metadata,
        }  # fmt: skip
        if self._form.is_table:
            obj = self._empty_table(obj, revision)
        elif self._form.is_metadata:
            obj = partial_metadata(obj)
        return _event_line("BOOKMARK", orjson.dumps(obj))

    def _empty_table(self, obj: Object, revision: int) -> Object:
        shown = {
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": str(revision)},
            "columnDefinitions": column_definitions(self._resource) if self.header else None,
            "rows": [{"cells": [], "object": obj}],
        }  # fmt: skip
        self.header = False
        return shown

    def _line(self, kind: str, stored: Stored, now: float) -> bytes:
        if self._form.is_table:
            metadata = {"resourceVersion": stored.obj["metadata"]["resourceVersion"]}
            shown = table(
                self._resource, [stored.obj], now, self._include, metadata, with_columns=self.header
            )
            return _event_line(kind, orjson.dumps(shown))
        return _event_line(kind, stored.metadata_json if self._form.is_metadata else stored.json)


def error_line(error: ApiError) -> bytes:
    """The ERROR event that ends a watch."""
    return _event_line("ERROR", orjson.dumps(error.status()))


def _event_line(kind: str, body: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode("ascii"), body)
