"""The `immutable` flag of ConfigMaps and Secrets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from raftkube.api import fields
from raftkube.api.resource import Object
from raftkube.api.status import FieldError

_TEXT: Final = "field is immutable when `immutable` is set"


def validate_immutable_data(new: Object, old: Object, data_fields: Sequence[str]) -> list[FieldError]:
    """Once set, neither the flag nor the data changes."""
    if not old.get("immutable"):
        return []
    errors = [] if new.get("immutable") else [fields.forbidden("immutable", _TEXT)]
    changed = (name for name in data_fields if (new.get(name) or {}) != (old.get(name) or {}))
    return errors + [fields.forbidden(name, _TEXT) for name in changed]
