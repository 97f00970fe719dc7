"""JSON merge patch, RFC 7386."""

from __future__ import annotations

from typing import Any

from raftkube.api.status import bad_request

Object = dict[str, Any]


def apply_merge_patch(old: Object, patch: Any) -> Object:
    """`old` with `patch` merged in: null removes, objects merge, everything else replaces.

    Neither is changed. Raises ApiError 400: the patch is no object.
    """
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: a merge patch must be a JSON object")
    return _merge(old, patch)


def _merge(target: Any, patch: Object) -> Object:
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merge(merged.get(key), value)
        else:
            merged[key] = value
    return merged
