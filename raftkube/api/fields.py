"""Field errors, worded as upstream's `field.Error`.

Source: k8s.io/apimachinery/pkg/util/validation/field/errors.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from raftkube.api.status import FieldError

IMMUTABLE: Final = "field is immutable"
NOT_NEGATIVE: Final = "must be greater than or equal to 0"


def quoted(text: str) -> str:
    """`text` as Go's %q writes it."""
    return json.dumps(text, ensure_ascii=False)


def shown(value: Any) -> str:
    """A bad value inside a message: strings quoted, numbers and booleans plain, the rest as JSON."""
    if isinstance(value, str):
        return quoted(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _with_detail(body: str, detail: str) -> str:
    return f"{body}: {detail}" if detail else body


def required(path: str, detail: str = "") -> FieldError:
    """The field must be set."""
    return FieldError(path, "FieldValueRequired", _with_detail("Required value", detail))


def invalid(path: str, value: Any, detail: str) -> FieldError:
    """The value breaks a rule."""
    return FieldError(path, "FieldValueInvalid", _with_detail(f"Invalid value: {shown(value)}", detail))


def duplicate(path: str, value: Any) -> FieldError:
    """The value must be unique in its list."""
    return FieldError(path, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def not_found(path: str, value: Any) -> FieldError:
    """The value names something that does not exist."""
    return FieldError(path, "FieldValueNotFound", f"Not found: {shown(value)}")


def not_supported(path: str, value: Any, supported: Sequence[str]) -> FieldError:
    """The value is not one of `supported`."""
    names = ", ".join(quoted(name) for name in supported)
    detail = f"supported values: {names}" if supported else ""
    return FieldError(
        path, "FieldValueNotSupported", _with_detail(f"Unsupported value: {shown(value)}", detail)
    )


def forbidden(path: str, detail: str) -> FieldError:
    """The field may not be set, or not be changed, here."""
    return FieldError(path, "FieldValueForbidden", _with_detail("Forbidden", detail))


def too_long(path: str, bytes_max: int) -> FieldError:
    """More than `bytes_max` bytes."""
    return FieldError(path, "FieldValueTooLong", f"Too long: may not be more than {bytes_max} bytes")


def immutable(path: str, new: Any, old: Any) -> list[FieldError]:
    """One error if `new` differs from `old`; absent and null count as equal."""
    return [] if new == old else [invalid(path, new, IMMUTABLE)]


def all_invalid(path: str, value: Any, details: Iterable[str]) -> list[FieldError]:
    """One error for each text."""
    return [invalid(path, value, detail) for detail in details]


def not_negative(path: str, value: Any) -> list[FieldError]:
    """One error if a number is below zero (0 and absent are fine)."""
    return [invalid(path, value, NOT_NEGATIVE)] if (value or 0) < 0 else []


def one_of(path: str, value: Any, supported: Sequence[str]) -> list[FieldError]:
    """One error unless `value` is among `supported`; an empty value is a missing one."""
    if value in supported:
        return []
    return [required(path)] if not value else [not_supported(path, value, supported)]


def in_range(path: str, value: Any, low: int, high: int) -> list[FieldError]:
    """One error unless low ≤ value ≤ high."""
    if low <= value <= high:
        return []
    return [invalid(path, value, f"must be between {low} and {high}, inclusive")]
