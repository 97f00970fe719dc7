"""ConfigMap."""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.encoded import base64_bytes, base64_errors
from raftkube.api.immutability import validate_immutable_data
from raftkube.api.names import config_key_errors
from raftkube.api.objects import section
from raftkube.api.resource import Column, Object, Resource, Strategy
from raftkube.api.status import FieldError
from raftkube.api.tables import AGE, NAME, created

BYTES_MAX: Final = 1024 * 1024


def _validate(config_map: Object) -> list[FieldError]:
    data, binary = section(config_map, "data"), section(config_map, "binaryData")
    errors: list[FieldError] = []
    size = 0
    for key, text in data.items():
        errors += fields.all_invalid(f"data[{key}]", key, config_key_errors(key))
        if key in binary:
            errors.append(fields.invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
        size += len(text.encode())
    for key, text in binary.items():
        errors += fields.all_invalid(f"binaryData[{key}]", key, config_key_errors(key))
        errors += base64_errors(f"binaryData[{key}]", text)
        size += base64_bytes(text)
    return [*errors, fields.too_long("[]", BYTES_MAX)] if size > BYTES_MAX else errors


def _row(config_map: Object, now: float) -> list[Any]:
    count = len(section(config_map, "data")) + len(section(config_map, "binaryData"))
    return [config_map["metadata"].get("name", ""), count, created(config_map, now)]


RESOURCE = Resource(
    group="", version="v1", kind="ConfigMap", plural="configmaps", singular="configmap",
    namespaced=True, schema="io.k8s.api.core.v1.ConfigMap", short_names=("cm",),
    columns=(NAME, Column("Data", description="Data contains the configuration data."), AGE),
    row=_row,
    strategy=Strategy(
        validate=_validate,
        validate_update=lambda new, old: validate_immutable_data(new, old, ("data", "binaryData")),
    ),
)  # fmt: skip
