"""Bodies to objects and back: JSON, YAML and protobuf in, JSON and YAML out, and the choice between them.

Every failure is a 400, 406 or 415 with upstream's wording; no input raises anything else.
Source: k8s.io/apimachinery/pkg/runtime/serializer, k8s.io/apiserver/pkg/endpoints/handlers (create.go,
rest.go), k8s.io/apiserver/pkg/endpoints/handlers/negotiation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from raftkube.api import protobuf, yaml_text
from raftkube.api.status import ApiError, FieldError, bad_request, invalid, unsupported_media_type
from raftkube.api.structure import StructureError, conform

Object = dict[str, Any]

JSON: Final = "application/json"
YAML: Final = "application/yaml"
PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
BODY_TYPES: Final = (JSON, YAML, PROTOBUF)

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
PATCH_TYPES: Final = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH)

# The struct that upstream peeks at first; its text is part of the message for a body that is no object.
_TYPE_META_STRUCT: Final = (
    'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
)
_SUMMARY_BYTES: Final = 30
_PATCH_SHOWN_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Decoded:
    """An object that has the shape of its kind, and what a strict decoder minds about its body:
    `unknown field "spec.foo"`, `duplicate field "metadata.name"`. The unknown fields are gone from it."""

    obj: Object
    strict: tuple[str, ...] = ()


def media_type(content_type: str | None) -> str:
    """The media type of a Content-Type header without its parameters; JSON if there is none."""
    return (content_type or "").partition(";")[0].strip().lower() or JSON


def patch_type(content_type: str | None) -> str:
    """The patch's media type. Raises ApiError 415: not one of PATCH_TYPES (server-side apply too)."""
    found = media_type(content_type)
    if found not in PATCH_TYPES:
        raise unsupported_media_type(PATCH_TYPES)
    return found


def decode_object(
    body: bytes, content_type: str | None, *, api_version: str, kind: str, schema: str
) -> Decoded:
    """The body of a create or update of `kind` in `api_version`, whose definition is `schema`.

    A body without apiVersion or kind is taken as what the URL expects. Raises ApiError: 415, or 400 for
    anything that is wrong with the body.
    """
    obj, duplicates = _decode(body, content_type, api_version=api_version, kind=kind)
    obj.setdefault("apiVersion", api_version)
    obj.setdefault("kind", kind)
    obj["apiVersion"], obj["kind"] = obj["apiVersion"] or api_version, obj["kind"] or kind
    _check_kind(obj, api_version, kind)
    return Decoded(obj, (*duplicates, *check_structure(obj, schema)))


def check_structure(obj: Object, schema: str) -> tuple[str, ...]:
    """Bring `obj` (decoded, or patched) into the shape of its definition, in place; answer its unknown
    fields, which are dropped. Raises ApiError 400: a value is of the wrong type."""
    try:
        return tuple(conform(obj, schema))
    except StructureError as error:
        raise _not_handled(obj, str(obj.get("kind", "")), str(error)) from error


def decode_options(body: bytes, content_type: str | None, *, kind: str = "DeleteOptions") -> Object:
    """The body of a DELETE (or another *Options object); {} for none. Raises ApiError 400 or 415."""
    if not body.strip():
        return {}
    obj, _ = _decode(body, content_type, api_version="v1", kind=kind)
    if obj.get("kind") not in (None, "", kind):
        raise _not_handled(obj, kind, f"no kind {_quoted(obj['kind'])} is registered for these options")
    obj["kind"] = kind
    check_structure(obj, f"io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")
    return obj


def decode_patch(body: bytes) -> Any:
    """The JSON of a patch body (YAML is no patch). Raises ApiError 400."""
    try:
        patch = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"error decoding patch: {_json_reason(error)}") from error
    if too_deep(patch):
        raise bad_request(f"error decoding patch: {_TOO_DEEP}")
    return patch


def accept_patched(patched: Object, patch: Any, *, schema: str, field_validation: str) -> list[str]:
    """Bring a patched object into the shape of its definition, in place; the warnings to send.

    Raises ApiError 422 as upstream does after a patch: a value of the wrong type, or (Strict) a field
    that is not known.
    """
    try:
        strict = tuple(conform(patched, schema))
    except StructureError as error:
        raise _bad_patch(patch, str(error)) from error
    decoded = Decoded(patched, strict)
    if field_validation == "Strict" and strict:
        raise _bad_patch(patch, _strict_text(decoded))
    return enforce_strict(decoded, field_validation)


def enforce_strict(decoded: Decoded, field_validation: str) -> list[str]:
    """What `fieldValidation` asks for: "Strict" raises ApiError 400, "Warn" (and "") returns the texts for
    Warning headers, "Ignore" says nothing. Raises ApiError 400 for any other word."""
    if field_validation not in ("", "Ignore", "Warn", "Strict"):
        raise bad_request(
            f"fieldValidation: Unsupported value: {_quoted(field_validation)}: "
            'supported values: "Ignore", "Strict", "Warn"'
        )
    if field_validation == "Strict" and decoded.strict:
        raise _not_handled(decoded.obj, str(decoded.obj.get("kind", "")), _strict_text(decoded))
    return [] if field_validation == "Ignore" else list(decoded.strict)


def encode(obj: Any, media: str = JSON) -> bytes:
    """An answer's bytes in `media` (JSON or YAML), ended by a newline as upstream does."""
    return yaml_text.dump(obj) if media == YAML else orjson.dumps(obj, option=orjson.OPT_APPEND_NEWLINE)


# --- reading ---


def _decode(
    body: bytes, content_type: str | None, *, api_version: str, kind: str
) -> tuple[Object, list[str]]:
    media = media_type(content_type)
    if media == PROTOBUF:
        return _protobuf(body, api_version, kind), []
    if media == YAML:
        value, duplicates = _yaml(body, kind)
    elif media == JSON:
        value, duplicates = _json(body, kind)
    else:
        raise unsupported_media_type(BODY_TYPES)
    if not isinstance(value, dict):
        found = {list: "array", str: "string", bool: "bool", type(None): "null"}.get(type(value), "number")
        reason = f"json: cannot unmarshal {found} into Go value of type {_TYPE_META_STRUCT}"
        raise _unrecognized(body, kind, f"couldn't get version/kind; json parse error: {reason}")
    for member in ("apiVersion", "kind"):
        if not isinstance(value.get(member), str | None):
            raise _unrecognized(
                body, kind, f"couldn't get version/kind; json parse error: {member} is no string"
            )
    return value, duplicates


def _protobuf(body: bytes, api_version: str, kind: str) -> Object:
    try:
        return protobuf.decode(body, api_version=api_version, kind=kind)
    except protobuf.ProtobufError as error:
        raise _unrecognized(body, kind, f"protobuf: {error}") from error


def _yaml(body: bytes, kind: str) -> tuple[Any, list[str]]:
    try:
        return yaml_text.load(body)
    except yaml_text.YamlError as error:
        raise _unrecognized(body, kind, f"couldn't get version/kind; yaml parse error: {error}") from error


def _json(body: bytes, kind: str) -> tuple[Any, list[str]]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = f"couldn't get version/kind; json parse error: {_json_reason(error)}"
        raise _unrecognized(body, kind, reason) from error
    written = _write_within_depth(value)
    if written is None:
        raise _unrecognized(body, kind, f"couldn't get version/kind; json parse error: {_TOO_DEEP}")
    return value, _duplicate_fields(body, written)


# orjson reads 1,024 levels and writes 254: what is taken in must go out again, inside lists and events.
DEPTH_MAX: Final = 200
_WRITE_DEPTH_MAX: Final = 254
_TOO_DEEP: Final = f"nested more than {DEPTH_MAX} deep"


def too_deep(value: Any) -> bool:
    """Whether a JSON value is nested deeper than an object may be."""
    return _write_within_depth(value) is None


def _write_within_depth(value: Any) -> bytes | None:
    """The value as JSON, wrapped in lists so that the writer's own limit is DEPTH_MAX; None if deeper."""
    for _ in range(_WRITE_DEPTH_MAX - DEPTH_MAX):
        value = [value]
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return None


def _json_reason(error: orjson.JSONDecodeError) -> str:
    return f"{error.msg.rpartition(': line')[0] or error.msg} (line {error.lineno}, column {error.colno})"


_KEY_ENDS: Final = re.compile(rb'"[ \t\r\n]*:')


def _duplicate_fields(body: bytes, written: bytes) -> list[str]:
    """Keys that stand twice in one object of a JSON body, as `duplicate field "spec.replicas"`.

    orjson keeps the last one silently. `written`, the value as orjson writes it, has as many `":` as the
    body unless a key was lost (escapes can blur the count); only then is the body read again, slowly.
    """
    plain = len(_KEY_ENDS.findall(body)) == len(_KEY_ENDS.findall(written))
    if plain and b"\\u" not in body:
        return []
    try:
        pairs = json.loads(body, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return []
    return [f'duplicate field "{path}"' for path in _duplicates(pairs, "")]


class _Pairs(list[tuple[str, Any]]):
    """The members of an object as they stand in the text."""


def _duplicates(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, member in value:
            here = f"{path}.{key}" if path else key
            if key in seen:
                yield here
            seen.add(key)
            yield from _duplicates(member, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _duplicates(item, f"{path}[{index}]")


# --- what is wrong, in upstream's words ---


def _check_kind(obj: Object, api_version: str, kind: str) -> None:
    if obj["apiVersion"] != api_version:
        raise bad_request(
            f"the API version in the data ({obj['apiVersion']}) does not match the expected API version "
            f"({api_version})"
        )
    if obj["kind"] != kind:
        wrong = f"converting ({_go_name(api_version, obj['kind'])}) to ({_go_name(api_version, kind)})"
        raise _not_handled(obj, kind, f"{wrong}: unknown conversion")


def _go_name(api_version: str, kind: str) -> str:
    return f"{api_version.rpartition('/')[2]}.{kind}"


def _not_handled(obj: Object, kind: str, reason: str) -> ApiError:
    version = str(obj.get("apiVersion", "")).rpartition("/")[2]
    return bad_request(
        f'{obj.get("kind") or kind} in version "{version}" cannot be handled as a {kind}: {reason}'
    )


def _strict_text(decoded: Decoded) -> str:
    return "strict decoding error: " + ", ".join(decoded.strict)


def _bad_patch(patch: Any, reason: str) -> ApiError:
    shown = _quoted(orjson.dumps(patch).decode()[:_PATCH_SHOWN_MAX])
    return invalid(
        "", "", "", [FieldError("patch", "FieldValueInvalid", f"Invalid value: {shown}: {reason}")]
    )


def _unrecognized(body: bytes, kind: str, reason: str) -> ApiError:
    return bad_request(
        f"the object provided is unrecognized (must be of type {kind}): {reason} ({_summary(body)})"
    )


def _summary(body: bytes) -> str:
    """The body's beginning: as text if it looks like JSON, else in hex (summarizeData)."""
    if not body:
        return "<empty>"
    if body[:1] == b"{":
        text = body[:_SUMMARY_BYTES].decode("utf-8", errors="replace")
        return text + (" ..." if len(body) > _SUMMARY_BYTES else "")
    return body[:_SUMMARY_BYTES].hex() + (" ..." if len(body) > _SUMMARY_BYTES else "")


def _quoted(text: Any) -> str:
    return json.dumps(str(text), ensure_ascii=False)
