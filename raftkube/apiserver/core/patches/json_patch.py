"""JSON patch, RFC 6902, by the jsonpatch package, within the bounds of an API server.

Source of the limits and texts: k8s.io/apiserver/pkg/endpoints/handlers/patch.go (applyJSPatch).
"""

from __future__ import annotations

from typing import Any, Final

import jsonpatch
import orjson
from jsonpointer import JsonPointer, JsonPointerException

from raftkube.api.codecs import too_deep
from raftkube.api.objects import copy_json
from raftkube.api.status import ApiError, bad_request

Object = dict[str, Any]

OPERATIONS_MAX: Final = 10_000
# What `copy` may add altogether: a copied copy doubles, and twenty of those fill a machine.
COPIED_BYTES_MAX: Final = 3 * 1024 * 1024

_WORDS: Final = frozenset(("add", "remove", "replace", "move", "copy", "test"))
_VALUED: Final = frozenset(("add", "replace"))  # a test without a value tests for null
_REJECTED: Final = "the server rejected our request due to an error in our request"


def apply_json_patch(old: Object, patch: Any) -> Object:
    """`old` with every operation carried out in turn, or none. Neither is changed.

    Raises ApiError: 400 malformed, 413 too many operations, 422 one that cannot be carried out.
    """
    operations = _checked(patch)
    doc: Any = copy_json(old)
    copied = 0
    for number, operation in enumerate(operations):
        try:
            if operation["op"] == "copy":
                copied += _copied_bytes(doc, operation)
                if copied > COPIED_BYTES_MAX:
                    raise _rejected(number, operation, f"copies add more than {COPIED_BYTES_MAX} bytes")
            if not _tests_for_nothing(doc, operation):
                doc = jsonpatch.JsonPatch([operation]).apply(doc, in_place=True)
        except (jsonpatch.JsonPatchException, JsonPointerException, RecursionError, TypeError) as error:
            raise _rejected(number, operation, _why(error)) from error
    if not isinstance(doc, dict) or too_deep(doc):
        raise ApiError(422, "Invalid", f"{_REJECTED}: the patched document is no object, or nested too deep")
    return doc


def _checked(patch: Any) -> list[Object]:
    if not isinstance(patch, list):
        raise bad_request("error decoding patch: a JSON patch must be a list of operations")
    if len(patch) > OPERATIONS_MAX:
        raise ApiError(
            413, "RequestEntityTooLarge", "Request entity is too large: The allowed maximum operations in a "
            f"JSON patch is {OPERATIONS_MAX}, got {len(patch)}",
        )  # fmt: skip
    for number, operation in enumerate(patch):
        if problem := _malformed(operation):
            raise bad_request(f"error decoding patch: operation {number}: {problem}")
    return patch


def _malformed(operation: Any) -> str:
    if not isinstance(operation, dict):
        return "it is no object"
    if not isinstance(operation.get("op"), str) or operation["op"] not in _WORDS:
        return f"op must be one of {', '.join(sorted(_WORDS))}, not {operation.get('op')!r}"
    for member in ("path", "from") if operation["op"] in ("move", "copy") else ("path",):
        if not isinstance(operation.get(member), str):
            return f"{member!r} must be a JSON pointer such as /metadata/labels"
    if operation["op"] in _VALUED and "value" not in operation:
        return "'value' is missing"
    return ""


def _tests_for_nothing(doc: Any, operation: Object) -> bool:
    """A test for null passes where nothing is, as in upstream's library."""
    if operation["op"] != "test" or operation.get("value") is not None:
        return False
    return JsonPointer(operation["path"]).resolve(doc, None) is None


def _copied_bytes(doc: Any, operation: Object) -> int:
    return len(orjson.dumps(JsonPointer(operation["from"]).resolve(doc)))


def _why(error: Exception) -> str:
    """The library's words, but for those that speak of Python's types."""
    if isinstance(error, jsonpatch.JsonPatchTestFailed):
        return "test failed: another value is there"
    if isinstance(error, RecursionError | TypeError):
        return "the path leads through a value that is neither an object nor an array"
    return str(error)


def _rejected(number: int, operation: Object, reason: str) -> ApiError:
    word, path = operation["op"], operation["path"]
    return ApiError(422, "Invalid", f"{_REJECTED}: operation {number} ({word} {path}): {reason}")
