"""A protobuf message into the JSON object that upstream's Go types would write for it.

Envelope: the four bytes `k8s\\0`, then runtime.Unknown {typeMeta, raw, contentEncoding, contentType}.
Source: k8s.io/apimachinery/pkg/runtime/serializer/protobuf; the special cases are the UnmarshalJSON and
ProtoMessage methods of their own types.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import orjson

from raftkube.api.protobuf.table import META, Field, fields_of, message_of
from raftkube.api.protobuf.wire import BYTES, FIXED32, FIXED64, VARINT, ProtobufError, fields, signed, varint

__all__ = ["ProtobufError", "decode", "decode_message"]

MAGIC: Final = b"k8s\x00"
_RUNTIME: Final = "k8s.io.apimachinery.pkg.runtime"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
ABSENT: Final = object()


def decode(body: bytes, *, api_version: str, kind: str) -> dict[str, Any]:
    """The object of an enveloped body, with apiVersion and kind first.

    api_version and kind are what the URL expects, for an envelope that names none.
    Raises ProtobufError.
    """
    if not body.startswith(MAGIC):
        raise ProtobufError(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        )
    envelope = decode_message(body[4:], f"{_RUNTIME}.Unknown", raw_as_bytes=True)
    if envelope.get("contentEncoding"):
        raise ProtobufError(f"content encoding {envelope['contentEncoding']!r} is not supported")
    api_version = envelope.get("apiVersion") or api_version
    kind = envelope.get("kind") or kind
    message = message_of(api_version, kind)
    if message is None:
        raise ProtobufError(f'no kind "{kind}" is registered for version "{api_version}" in protobuf')
    return {"apiVersion": api_version, "kind": kind} | decode_message(envelope.get("raw") or b"", message)


def decode_message(data: bytes, message: str, *, raw_as_bytes: bool = False) -> dict[str, Any]:
    """The JSON object of one message. Unknown numbers are skipped (a newer client's fields)."""
    known = fields_of(message)
    obj: dict[str, Any] = {}
    for number, wire_type, value in fields(data):
        field = known.get(number)
        if field is None:
            continue
        if raw_as_bytes and field.type == "bytes":
            obj["raw"] = _message_bytes(field, wire_type, value)
        elif field.manner == "repeated":
            obj.setdefault(field.name, []).extend(_repeated(field, wire_type, value))
        elif field.manner == "map":
            key, item = _entry(field, _message_bytes(field, wire_type, value))
            obj.setdefault(field.name, {})[key] = item
        else:
            _put(obj, field, _value(field, wire_type, value))
    return obj


def _put(obj: dict[str, Any], field: Field, value: Any) -> None:
    if value is ABSENT or (field.empty_left_out and value == {}):
        return
    if field.inline:
        obj.update(value)
    elif field.zero_left_out and not value and value != {}:
        obj.pop(field.name, None)
    else:
        obj[field.name] = value


def _value(field: Field, wire_type: int, value: int | bytes) -> Any:
    expected, convert = _converter(field.type)
    if wire_type != expected:
        raise ProtobufError(f"field {field.name} of type {field.type} has wire type {wire_type}")
    return convert(value)


def _repeated(field: Field, wire_type: int, value: int | bytes) -> list[Any]:
    expected, convert = _converter(field.type)
    if wire_type != BYTES or expected != VARINT:
        item = _value(field, wire_type, value)
        return [] if item is ABSENT else [item]
    # Packed numbers: proto2 writers need not send them, readers must take them.
    assert isinstance(value, bytes)
    items, at = [], 0
    while at < len(value):
        number, at = varint(value, at)
        items.append(convert(number))
    return items


def _message_bytes(field: Field, wire_type: int, value: int | bytes) -> bytes:
    if wire_type != BYTES or not isinstance(value, bytes):
        raise ProtobufError(f"field {field.name} has wire type {wire_type} where a message is due")
    return value


def _entry(field: Field, data: bytes) -> tuple[str, Any]:
    """A map's entry is a message {key = 1, value = 2}; either may be left out and is then zero."""
    key, item = "", _zero(field.type)
    for number, wire_type, value in fields(data):
        if number == 1:
            key = _text(_message_bytes(field, wire_type, value))
        elif number == 2:
            item = _value(field, wire_type, value)
    return key, item


def _zero(type_: str) -> Any:
    scalars = {"string": "", "bytes": "", "bool": False, "int32": 0, "int64": 0, "double": 0.0}
    return scalars[type_] if type_ in scalars else _converter(type_)[1](b"")


# --- values ---


def _text(data: Any) -> str:
    # Go keeps any bytes in a string and writes U+FFFD for what is no UTF-8 when it makes JSON.
    return bytes(data).decode("utf-8", errors="replace")


def _base64(data: Any) -> str:
    return base64.b64encode(data).decode()


def _double(data: Any) -> float:
    return float(struct.unpack("<d", data)[0])


def _float(data: Any) -> float:
    return float(struct.unpack("<f", data)[0])


def _raw_json(data: Any) -> Any:
    """RawExtension and FieldsV1 are messages {raw = 1} that hold JSON text; none at all is absent."""
    text = b"".join(part for number, _, part in fields(data) if number == 1 and isinstance(part, bytes))
    if not text:
        return ABSENT
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtobufError(f"an embedded object is not JSON: {error}") from error


def _quantity(data: Any) -> str:
    text: str = decode_message(data, "k8s.io.apimachinery.pkg.api.resource.Quantity").get("string", "")
    return text or "0"


def _int_or_string(data: Any) -> int | str:
    parts = decode_message(data, "k8s.io.apimachinery.pkg.util.intstr.IntOrString")
    found: int | str = parts.get("strVal", "") if parts.get("type", 0) == 1 else parts.get("intVal", 0)
    return found


def _moment(data: bytes) -> tuple[datetime, int] | None:
    """Whole seconds and nanoseconds; None for the zero time, which is written as nothing."""
    if not data:
        return None
    parts = decode_message(data, f"{META}.Timestamp")
    try:
        moment = _EPOCH + timedelta(seconds=parts.get("seconds", 0))
    except OverflowError as error:
        raise ProtobufError(f"{parts['seconds']} seconds lie outside the years 1 to 9999") from error
    return moment, parts.get("nanos", 0)


def _time(data: Any) -> Any:
    moment = _moment(data)
    return ABSENT if moment is None else f"{moment[0]:%Y-%m-%dT%H:%M:%S}Z".rjust(20, "0")


def _micro_time(data: Any) -> Any:
    moment = _moment(data)
    if moment is None:
        return ABSENT
    micros = min(max(moment[1], 0), 999_999_999) // 1000
    return f"{moment[0]:%Y-%m-%dT%H:%M:%S}.{micros:06d}Z".rjust(27, "0")


def _duration(data: Any) -> str:
    nanos = decode_message(data, f"{META}.Duration").get("duration", 0)
    return go_duration(nanos)


def go_duration(nanos: int) -> str:
    """Go's time.Duration.String: `1h2m3.5s`, `250ms`, `0s`."""
    if nanos < 0:
        return "-" + go_duration(-nanos)
    if nanos < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000)):
            if nanos >= size:
                return _decimal(nanos, size) + unit
        return f"{nanos}ns" if nanos else "0s"
    minutes, rest = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, 1_000_000_000) + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".") if rest else str(whole)


def _list_of_items(message: str) -> Callable[[Any], list[Any]]:
    def convert(data: Any) -> list[Any]:
        items: list[Any] = decode_message(data, message).get("items", [])
        return items

    return convert


_SCALARS: Final[dict[str, tuple[int, Callable[[Any], Any]]]] = {
    "string": (BYTES, _text),
    "bytes": (BYTES, _base64),
    "bool": (VARINT, bool),
    "int32": (VARINT, lambda value: signed(value, 32)),
    "int64": (VARINT, lambda value: signed(value, 64)),
    "double": (FIXED64, _double),
    "float": (FIXED32, _float),
}
_SPECIAL: Final[dict[str, Callable[[Any], Any]]] = {
    "k8s.io.apimachinery.pkg.api.resource.Quantity": _quantity,
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    f"{_RUNTIME}.RawExtension": _raw_json,
    f"{META}.FieldsV1": _raw_json,
    f"{META}.Time": _time,
    f"{META}.MicroTime": _micro_time,
    f"{META}.Duration": _duration,
}
# Go types that are lists of strings and need a message of their own on the wire.
_LISTS: Final = (".Verbs", ".ExtraValue")


@cache
def _converter(type_: str) -> tuple[int, Callable[[Any], Any]]:
    """(wire type, what makes a JSON value of it)."""
    if type_ in _SCALARS:
        return _SCALARS[type_]
    if type_ in _SPECIAL:
        return BYTES, _SPECIAL[type_]
    if type_.endswith(_LISTS):
        return BYTES, _list_of_items(type_)
    return BYTES, lambda data: decode_message(data, type_)
