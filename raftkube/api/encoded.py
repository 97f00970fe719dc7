"""Bytes inside JSON: base64 texts."""

from __future__ import annotations

import base64
import binascii

from raftkube.api import fields
from raftkube.api.status import FieldError


def base64_errors(path: str, text: str) -> list[FieldError]:
    """One error unless `text` is standard base64; the value itself is never repeated (it may be secret)."""
    try:
        base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return [fields.invalid(path, "<hidden>", "must be base64-encoded (RFC 4648 §4, with padding)")]
    return []


def base64_bytes(text: str) -> int:
    """How many bytes a base64 text stands for."""
    stripped = (text or "").rstrip("=")
    return len(stripped) * 3 // 4


def base64_text(text: str) -> str:
    """The base64 of a text's UTF-8 bytes."""
    return base64.b64encode(text.encode()).decode()


def base64_decoded(text: str) -> bytes | None:
    """The bytes; None if it is no base64."""
    try:
        return base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return None
