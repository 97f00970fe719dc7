"""Secret."""

from __future__ import annotations

import json
from typing import Any, Final

from raftkube.api import fields
from raftkube.api.encoded import base64_bytes, base64_decoded, base64_errors, base64_text
from raftkube.api.field_selectors import text_at
from raftkube.api.immutability import validate_immutable_data
from raftkube.api.names import config_key_errors
from raftkube.api.objects import child, section, setdefault_falsy
from raftkube.api.resource import Column, Object, Resource, Strategy
from raftkube.api.status import FieldError
from raftkube.api.tables import AGE, NAME, created

BYTES_MAX: Final = 1024 * 1024
_ACCOUNT_NAME: Final = "kubernetes.io/service-account.name"
_TOKEN_TYPE: Final = "kubernetes.io/service-account-token"
_DOCKER_KEYS: Final = {
    "kubernetes.io/dockercfg": ".dockercfg",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
}
_REQUIRED_KEYS: Final = {
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _default(secret: Object) -> None:
    """stringData is for writing only: its texts become data, and win over what data holds."""
    setdefault_falsy(secret, "type", "Opaque")
    for key, text in (secret.pop("stringData", None) or {}).items():
        child(secret, "data")[key] = base64_text(text)
    data = section(secret, "data")
    for key, value in data.items():
        if value is None:
            data[key] = ""


def _validate(secret: Object) -> list[FieldError]:
    data = section(secret, "data")
    errors: list[FieldError] = []
    size = 0
    for key, text in data.items():
        errors += fields.all_invalid(f"data[{key}]", key, config_key_errors(key))
        errors += base64_errors(f"data[{key}]", text)
        size += base64_bytes(text)
    if size > BYTES_MAX:
        errors.append(fields.too_long("data", BYTES_MAX))
    return errors + _validate_type(secret, secret.get("type", ""), data)


def _validate_type(secret: Object, kind: str, data: dict[str, Any]) -> list[FieldError]:
    if kind == _TOKEN_TYPE:
        annotations = section(section(secret, "metadata"), "annotations")
        path = f"metadata.annotations[{_ACCOUNT_NAME}]"
        return [] if annotations.get(_ACCOUNT_NAME) else [fields.required(path)]
    if kind in _DOCKER_KEYS:
        return _validate_docker(_DOCKER_KEYS[kind], data)
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & data.keys():
        return [fields.required("data[username]"), fields.required("data[password]")]
    return [fields.required(f"data[{key}]") for key in _REQUIRED_KEYS.get(kind, ()) if key not in data]


def _validate_docker(key: str, data: dict[str, Any]) -> list[FieldError]:
    if key not in data:
        return [fields.required(f"data[{key}]")]
    try:
        json.loads(base64_decoded(data[key]) or b"")
    except ValueError as error:
        return [fields.invalid(f"data[{key}]", "<secret contents redacted>", str(error))]
    return []


def _validate_update(new: Object, old: Object) -> list[FieldError]:
    errors = fields.immutable("type", new.get("type"), old.get("type"))
    return errors + validate_immutable_data(new, old, ("data",))


def _row(secret: Object, now: float) -> list[Any]:
    return [
        secret["metadata"].get("name", ""), secret.get("type", ""), len(section(secret, "data")),
        created(secret, now),
    ]  # fmt: skip


RESOURCE = Resource(
    group="", version="v1", kind="Secret", plural="secrets", singular="secret",
    namespaced=True, schema="io.k8s.api.core.v1.Secret",
    columns=(
        NAME,
        Column("Type", description="Used to facilitate programmatic handling of secret data."),
        Column("Data", description="Data contains the secret data."),
        AGE,
    ),
    row=_row,
    field_selectors={"type": text_at("type")},
    strategy=Strategy(default=_default, validate=_validate, validate_update=_validate_update),
)  # fmt: skip
