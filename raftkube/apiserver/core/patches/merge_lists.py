"""Order and identity in the lists of a strategic merge patch.

Source: k8s.io/apimachinery/pkg/util/strategicpatch/patch.go (normalizeElementOrder, mergeSortedSlice,
validatePatchWithSetOrderList).
"""

from __future__ import annotations

from typing import Any, Final

DIRECTIVE: Final = "$patch"
BAD_SET_ELEMENT_ORDER: Final = "invalid patch format of setElementOrder list"


class PatchError(ValueError):
    """The patch cannot be applied; `code` is 400 or 422."""

    def __init__(self, message: str, code: int = 400) -> None:
        super().__init__(message)
        self.code = code


def same(left: Any, right: Any) -> bool:
    """Go's == of two JSON values: 1, 1.0 and true are three things."""
    return type(left) is type(right) and left == right


def require_list(value: Any, problem: str) -> None:
    """Raises PatchError with `problem` unless `value` is a list."""
    if not isinstance(value, list):
        raise PatchError(problem)


def element_kind(*lists: list[Any]) -> type:
    """The one type of all elements. Raises PatchError: they differ, or are lists."""
    kinds = {type(item) for items in lists for item in items}
    if list in kinds:
        raise PatchError("lists of lists are not supported", 422)
    if len(kinds) > 1:
        raise PatchError("list element types are not identical")
    return kinds.pop()


def merge_scalars(old: list[Any], patch: list[Any]) -> list[Any]:
    """Both lists, each value once."""
    merged: dict[tuple[type, Any], Any] = {}
    for value in [*old, *patch]:
        merged.setdefault((type(value), value), value)
    return list(merged.values())


def identity(item: Any, merge_key: str) -> tuple[type, Any]:
    """What tells an item apart: its merge key's value, or itself. Raises PatchError: it has none."""
    if not merge_key:
        value = item
    elif not isinstance(item, dict) or merge_key not in item:
        raise PatchError(f"map: {item} does not contain declared merge key: {merge_key}")
    else:
        value = item[merge_key]
    if isinstance(value, dict | list):
        raise PatchError("a merge key must be a string, a number or a boolean")
    return type(value), value


def _positions(items: list[Any], merge_key: str) -> dict[tuple[type, Any], int]:
    found: dict[tuple[type, Any], int] = {}
    for position, item in enumerate(items):
        found.setdefault(identity(item, merge_key), position)
    return found


def in_order(contents: list[Any], order: list[Any], old: list[Any], merge_key: str) -> list[Any]:
    """`contents` with the items that `order` names in its order, the others in the old list's, and the
    two interleaved as they stood in the old list."""
    if not contents:
        return contents
    if not merge_key and element_kind(contents) is dict:
        return contents
    wanted, before = _positions(order, merge_key), _positions(old, merge_key)
    named = [item for item in contents if identity(item, merge_key) in wanted]
    others = [item for item in contents if identity(item, merge_key) not in wanted]
    named.sort(key=lambda item: wanted[identity(item, merge_key)])
    others.sort(key=lambda item: before.get(identity(item, merge_key), -1))
    return _interleaved(others, named, before, merge_key)


def _interleaved(
    others: list[Any], named: list[Any], before: dict[tuple[type, Any], int], merge_key: str
) -> list[Any]:
    """Put `others` among `named`: each before the first named item that stood behind it in the old list."""
    result: list[Any] = []
    left = right = 0
    while left < len(others) and right < len(named):
        here = before.get(identity(others[left], merge_key))
        there = before.get(identity(named[right], merge_key))
        if here is not None and there is not None and here < there:
            result.append(others[left])
            left += 1
        else:
            result.append(named[right])
            right += 1
    return result + others[left:] + named[right:]


def validate_order(patch: list[Any], order: list[Any], merge_key: str) -> None:
    """The patch's items must stand in `order`'s order and be among it (deletions aside).

    Raises PatchError.
    """
    if not patch or not order:
        return
    kept = [item for item in patch if not (isinstance(item, dict) and DIRECTIVE in item)]
    position = 0
    for named in order:
        if position < len(kept) and identity(kept[position], merge_key) == identity(named, merge_key):
            position += 1
    if position < len(kept):
        raise PatchError(f"the order in the patch list does not match the $setElementOrder list: {order}")
