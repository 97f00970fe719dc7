"""The rules of volumes. Source: pkg/apis/core/validation/validation.go, ValidateVolumes."""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.names import dns_label_errors
from raftkube.api.objects import items
from raftkube.api.podspec.containers import validate_local_path
from raftkube.api.quantity import QuantityError, quantity
from raftkube.api.status import FieldError

_MODE_MAX: Final = 0o777
_NAMED: Final = {"secret": "secretName", "configMap": "name", "persistentVolumeClaim": "claimName",
                 "hostPath": "path"}  # fmt: skip


def validate_volumes(volumes: list[dict[str, Any]], path: str) -> tuple[list[FieldError], set[str]]:
    """(what is wrong, the names that mounts may refer to)."""
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        at, name = f"{path}[{index}]", volume.get("name") or ""
        errors += _validate_source(volume, at)
        if not name:
            errors.append(fields.required(f"{at}.name"))
            continue
        errors += fields.all_invalid(f"{at}.name", name, dns_label_errors(name))
        if name in names:
            errors.append(fields.duplicate(f"{at}.name", name))
        names.add(name)
    return errors, names


def _validate_source(volume: dict[str, Any], path: str) -> list[FieldError]:
    kinds = [kind for kind, value in volume.items() if kind != "name" and value is not None]
    if not kinds:
        return [fields.required(path, "must specify a volume type")]
    if len(kinds) > 1:
        text = "may not specify more than 1 volume type"
        return [fields.forbidden(f"{path}.{kind}", text) for kind in kinds[1:]]
    kind = kinds[0]
    return _validate_kind(volume[kind], f"{path}.{kind}", kind)


def _validate_kind(source: dict[str, Any], path: str, kind: str) -> list[FieldError]:
    errors: list[FieldError] = []
    name_field = _NAMED.get(kind)
    if name_field and not source.get(name_field):
        errors.append(fields.required(f"{path}.{name_field}"))
    if kind == "hostPath" and ".." in (source.get("path") or "").split("/"):
        errors.append(fields.invalid(f"{path}.path", source["path"], "must not contain '..'"))
    mode = source.get("defaultMode")
    if mode is not None and not 0 <= mode <= _MODE_MAX:
        text = "must be a number between 0 and 0777 (octal), both inclusive"
        errors.append(fields.invalid(f"{path}.defaultMode", mode, text))
    if source.get("sizeLimit") is not None:
        errors += _validate_size(source["sizeLimit"], f"{path}.sizeLimit")
    return errors + _validate_items(source, path)


def _validate_size(value: Any, path: str) -> list[FieldError]:
    try:
        negative = quantity(value).nano < 0
    except QuantityError as error:
        return [fields.invalid(path, value, str(error))]
    return [fields.forbidden(path, "SizeLimit field must be a valid resource quantity")] if negative else []


def _validate_items(source: dict[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(items(source, "items")):
        at = f"{path}.items[{index}]"
        if "key" in item and not item["key"]:
            errors.append(fields.required(f"{at}.key"))
        if not item.get("path"):
            errors.append(fields.required(f"{at}.path"))
        else:
            errors += validate_local_path(item["path"], f"{at}.path")
    return errors
