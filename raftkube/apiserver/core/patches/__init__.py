"""The three kinds of PATCH as pure functions: old object and patch in, new object out.

None of them changes what it is given. The single functions share with the old object every part that
the patch does not touch; `apply_patch` answers an object of its own, which may be changed in place.
Server-side apply is not here: its media type is refused with 415 (`codecs.patch_type`).
"""

from __future__ import annotations

from typing import Any

from raftkube.api import codecs
from raftkube.api.objects import copy_json
from raftkube.apiserver.core.patches.json_patch import apply_json_patch
from raftkube.apiserver.core.patches.merge_patch import apply_merge_patch
from raftkube.apiserver.core.patches.strategic import apply_strategic_patch

__all__ = ["apply_json_patch", "apply_merge_patch", "apply_patch", "apply_strategic_patch"]

Object = dict[str, Any]


def apply_patch(old: Object, patch: Any, *, media_type: str, schema: str) -> Object:
    """The object after a patch of one of `codecs.PATCH_TYPES`; `patch` is its decoded JSON.

    schema: the object's definition, for strategic merge; "" for kinds without one, which know no
    strategic merge (415). The result is not yet checked against it (`codecs.accept_patched`).
    Raises ApiError: 400 malformed, 415, 422 a JSON patch that cannot be applied.
    """
    if media_type == codecs.JSON_PATCH:
        return apply_json_patch(old, patch)
    merge = media_type == codecs.MERGE_PATCH
    patched = apply_merge_patch(old, patch) if merge else apply_strategic_patch(old, patch, schema)
    return copy_json(patched)  # type: ignore[no-any-return]
