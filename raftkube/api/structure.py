"""What a typed Go decoder does to a JSON object: wrong types are refused, unknown fields reported and
dropped, nulls dropped, times and quantities brought into their canonical form.

A definition is compiled once into closures, when a kind is first met; a check walks the object once and
changes it in place. Required fields, enums and every rule across fields are the kinds' own validation:
a decoder knows none of them.
Source of the texts: encoding/json's UnmarshalTypeError, sigs.k8s.io/json (strict errors).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple

from raftkube.api.quantity import QuantityError, quantity
from raftkube.api.schemas import Definition, definition, reference, types

Object = dict[str, Any]


class StructureError(ValueError):
    """A value does not fit its type: the text that upstream's decoder would give."""


class Where(NamedTuple):
    """The place of a value: a linked list, made into text only when something is wrong.

    step: a field's name, or an item's index. struct: the Go struct that a field stands in, "" for an
    item or a map's key.
    """

    parent: Where | None
    step: str | int
    struct: str

    def steps(self) -> list[Where]:
        """From the root down."""
        found: list[Where] = []
        here: Where | None = self
        while here is not None:
            found.append(here)
            here = here.parent
        return found[::-1]


# A check takes a value that is not None and answers what to keep in its place.
Check = Callable[[Any, "Where | None", list[str]], Any]
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."


def conform(obj: Object, schema: str) -> list[str]:
    """Bring `obj` into the shape of a definition, in place.

    Returns the unknown fields, which are gone from `obj` then, as `unknown field "spec.foo"`.
    Raises StructureError: a value is of the wrong type.
    """
    unknown: list[str] = []
    _named(schema)(obj, None, unknown)
    return unknown


def path_text(where: Where | None) -> str:
    """`spec.containers[0].name`."""
    text = ""
    for step in where.steps() if where is not None else ():
        if isinstance(step.step, int):
            text += f"[{step.step}]"
        else:
            text += f".{step.step}" if text else step.step
    return text


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    names = {str: "string", int: "number", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _mismatch(value: Any, where: Where | None, go_type: str, *, literal: bool = False) -> StructureError:
    """Go's text; `literal` shows a number that is of the right kind and does not fit."""
    what = _json_type(value) + (f" {value}" if literal else "")
    fields = [step for step in (where.steps() if where else ()) if step.struct]
    if not fields:
        return StructureError(f"json: cannot unmarshal {what} into Go value of type {go_type}")
    path = ".".join(str(step.step) for step in fields)
    return StructureError(
        f"json: cannot unmarshal {what} into Go struct field {fields[-1].struct}.{path} of type {go_type}"
    )


# --- scalars ---


def _string(value: Any, where: Where | None, unknown: list[str]) -> Any:
    if value.__class__ is not str:
        raise _mismatch(value, where, "string")
    return value


def _boolean(value: Any, where: Where | None, unknown: list[str]) -> Any:
    if value.__class__ is not bool:
        raise _mismatch(value, where, "bool")
    return value


def _integer(bits: int) -> Check:
    low, high, go_type = -(1 << (bits - 1)), (1 << (bits - 1)) - 1, f"int{bits}"

    def check(value: Any, where: Where | None, unknown: list[str]) -> Any:
        if value.__class__ is int and low <= value <= high:
            return value
        raise _mismatch(value, where, go_type, literal=value.__class__ in (int, float))

    return check


_int32, _int64 = _integer(32), _integer(64)


def _number(value: Any, where: Where | None, unknown: list[str]) -> Any:
    if value.__class__ not in (int, float):
        raise _mismatch(value, where, "float64")
    return value


def _bytes(value: Any, where: Where | None, unknown: list[str]) -> Any:
    if value.__class__ is not str:
        raise _mismatch(value, where, "[]uint8")
    plain = value.replace("\n", "").replace("\r", "") if "\n" in value or "\r" in value else value
    try:
        binascii.a2b_base64(plain, strict_mode=True)
    except (binascii.Error, ValueError):
        raise StructureError(f"illegal base64 data at input byte {_bad_base64_at(plain)}") from None
    return plain


def _bad_base64_at(text: str) -> int:
    body = text.rstrip("=")
    found = re.search(r"[^A-Za-z0-9+/]", body)
    if found:
        return found.start()
    return len(text) if len(text) % 4 else len(body)


def _int_or_string(value: Any, where: Where | None, unknown: list[str]) -> Any:
    return value if value.__class__ is str else _int32(value, where, unknown)


def _quantity(value: Any, where: Where | None, unknown: list[str]) -> Any:
    try:
        return str(quantity(value))
    except QuantityError as error:
        raise StructureError(str(error)) from None


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def _moment(value: Any, where: Where | None) -> datetime:
    if value.__class__ is not str:
        raise _mismatch(value, where, "string")
    if not _TIME.fullmatch(value):
        raise StructureError(f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse it')
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise StructureError(f'parsing time "{value}": {error}') from None


def _time(value: Any, where: Where | None, unknown: list[str]) -> Any:
    moment = _moment(value, where)
    # Seconds are all that a metav1.Time keeps; the text is kept as it is where it says just that.
    if len(value) == 20 and value[19] == "Z":
        return value
    return f"{moment.replace(microsecond=0, tzinfo=None).isoformat()}Z"


def _micro_time(value: Any, where: Where | None, unknown: list[str]) -> Any:
    moment = _moment(value, where)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _anything(value: Any, where: Where | None, unknown: list[str]) -> Any:
    return value


def _any_object(value: Any, where: Where | None, unknown: list[str]) -> Any:
    if value.__class__ is not dict:
        raise _mismatch(value, where, "map[string]interface {}")
    return value


# --- objects, lists, maps ---


def _struct(go_name: str, go_type: str, properties: dict[str, Definition]) -> Check:
    checks: dict[str, Check] = {}

    def check(value: Any, where: Where | None, unknown: list[str]) -> Any:
        if value.__class__ is not dict:
            raise _mismatch(value, where, go_type)
        dropped: list[str] = []
        for name, member in value.items():
            of_field = checks.get(name)
            if of_field is None and name in properties:
                of_field = checks[name] = _compile(properties[name])
            here = Where(where, name, go_name)
            if of_field is None:
                unknown.append(f'unknown field "{path_text(here)}"')
                dropped.append(name)
            elif member is None:
                dropped.append(name)
            else:
                value[name] = of_field(member, here, unknown)
        for name in dropped:
            del value[name]
        return value

    return check


def _list(items: Definition) -> Check:
    item_check, zero, go_type = _compile(items), _zero_of(items), f"[]{_go_type(items)}"

    def check(value: Any, where: Where | None, unknown: list[str]) -> Any:
        if value.__class__ is not list:
            raise _mismatch(value, where, go_type)
        for index, item in enumerate(value):
            # Go reads null in a list as the zero value of the item's type.
            value[index] = zero() if item is None else item_check(item, Where(where, index, ""), unknown)
        return value

    return check


def _map(values: Definition) -> Check:
    value_check, zero, go_type = _compile(values), _zero_of(values), f"map[string]{_go_type(values)}"

    def check(value: Any, where: Where | None, unknown: list[str]) -> Any:
        if value.__class__ is not dict:
            raise _mismatch(value, where, go_type)
        for key, item in value.items():
            value[key] = zero() if item is None else value_check(item, Where(where, key, ""), unknown)
        return value

    return check


_SCALARS: Final[dict[str, Check]] = {"string": _string, "boolean": _boolean, "number": _number}
_SPECIAL: Final[dict[str, Check]] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": _quantity,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    _META + "Time": _time,
    _META + "MicroTime": _micro_time,
    _META + "FieldsV1": _any_object,
    _META + "Patch": _any_object,
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _anything,
}


def _compile(schema: Definition) -> Check:
    """The check of a schema inside a definition."""
    name = reference(schema)
    if name is not None:
        return _named(name)
    kinds = types(schema)
    if "array" in kinds:
        return _list(schema["items"])
    if "object" in kinds:
        values = schema.get("additionalProperties")
        return _map(values) if isinstance(values, dict) else _any_object
    if "integer" in kinds:
        return _int32 if schema.get("format") == "int32" else _int64
    if "string" in kinds and schema.get("format") == "byte":
        return _bytes
    return _SCALARS[next(iter(kinds))] if kinds else _anything


@cache
def _named(name: str) -> Check:
    """The check of a definition; its fields are compiled when first met, so a definition may hold itself."""
    if name in _SPECIAL:
        return _SPECIAL[name]
    schema = definition(name)
    if "object" not in types(schema):
        return _anything if not types(schema) else _compile(schema)
    return _struct(name.rpartition(".")[2], _go_struct(name), schema.get("properties", {}))


# --- the names of Go types, for messages ---


def _go_struct(name: str) -> str:
    package, _, struct = name.rpartition(".")
    return f"{package.rpartition('.')[2]}.{struct}"


def _go_type(schema: Definition) -> str:
    name = reference(schema)
    if name is not None:
        return _go_struct(name)
    kinds = types(schema)
    if "array" in kinds:
        return f"[]{_go_type(schema['items'])}"
    if "object" in kinds:
        values = schema.get("additionalProperties")
        return f"map[string]{_go_type(values)}" if isinstance(values, dict) else "map[string]interface {}"
    if "string" in kinds and schema.get("format") == "byte":
        return "[]uint8"
    if "integer" in kinds:
        return str(schema.get("format", "int64"))
    return {"boolean": "bool", "number": "float64"}.get(next(iter(kinds), ""), "string")


def _zero_of(schema: Definition) -> Callable[[], Any]:
    name = reference(schema)
    kinds = types(definition(name) if name else schema)
    if name and name.endswith("Quantity"):
        return lambda: "0"
    if name and name.endswith("IntOrString"):
        return int
    zeros: dict[str, Callable[[], Any]] = {
        "string": str, "boolean": bool, "integer": int, "number": float, "array": list, "object": dict,
    }  # fmt: skip
    return zeros.get(next(iter(kinds), ""), dict)
