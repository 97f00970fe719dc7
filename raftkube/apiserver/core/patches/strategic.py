"""Strategic merge patch: a merge patch that knows which lists are maps in disguise.

A list whose schema says `patchStrategy: merge` is merged item by item, told apart by its merge key.
Directives inside the patch: `$patch: replace | delete | merge` (on an object or a list's item),
`$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`, `$retainKeys`.

Source: k8s.io/apimachinery/pkg/util/strategicpatch/patch.go with MergeParallelList and
IgnoreUnmatchedNulls, what an API server uses. It differs where upstream would answer 500: every patch
that cannot be applied is 400 (or 422 where upstream says so).
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.api.schemas import PatchMeta, patch_meta
from raftkube.api.status import ApiError, bad_request
from raftkube.apiserver.core.patches.merge_lists import (
    BAD_SET_ELEMENT_ORDER,
    DIRECTIVE,
    PatchError,
    element_kind,
    in_order,
    merge_scalars,
    require_list,
    same,
    validate_order,
)

Object = dict[str, Any]

RETAIN_KEYS: Final = "$retainKeys"
DELETE_FROM: Final = "$deleteFromPrimitiveList"
SET_ORDER: Final = "$setElementOrder"
BAD_RETAIN_KEYS: Final = "invalid patch format of retainKeys"
BAD_PRIMITIVE_LIST: Final = "invalid patch format of primitive list"


def apply_strategic_patch(old: Object, patch: Any, schema: str) -> Object:
    """`old` with `patch` merged in by the rules of the definition `schema`. Neither is changed.

    Raises ApiError: 415 for a kind without a definition, 400 or 422 for a patch that cannot be applied.
    """
    if not schema:
        raise ApiError(
            415, "UnsupportedMediaType", "strategic merge patch is not supported for this kind; use "
            "application/merge-patch+json or application/json-patch+json",
        )  # fmt: skip
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: a strategic merge patch must be a JSON object")
    try:
        return _merge_object(old, patch, schema)
    except PatchError as error:
        if error.code == 422:
            raise ApiError(422, "Invalid", str(error)) from error
        raise bad_request(str(error)) from error


def _merge_object(old: Object, patch: Object, schema: str) -> Object:
    if DIRECTIVE in patch:
        return _whole_object_directive(patch)
    merged = _retained(old, patch)
    ordered = _merge_ordered_lists(merged, patch, schema)
    for key, value in patch.items():
        if key in ordered or key == RETAIN_KEYS or key.startswith(SET_ORDER):
            continue
        if key.startswith(DELETE_FROM):
            _delete_from_list(merged, _field_of(key, DELETE_FROM, BAD_PRIMITIVE_LIST), value)
        elif value is None:
            merged.pop(key, None)
        else:
            _put(merged, key, value, schema)
    return merged


def _whole_object_directive(patch: Object) -> Object:
    """`$patch: replace` keeps only what the patch says; `delete` leaves an empty object."""
    directive = patch[DIRECTIVE]
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != DIRECTIVE}
    if directive == "delete":
        return {}
    raise PatchError(f"unknown patch type: {directive} in map: {patch}")


def _retained(old: Object, patch: Object) -> Object:
    """A copy of `old`, without the keys that `$retainKeys` does not name."""
    if RETAIN_KEYS not in patch:
        return dict(old)
    names = patch[RETAIN_KEYS]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PatchError(BAD_RETAIN_KEYS)
    retained = frozenset(names)
    for key, value in patch.items():
        directive = key == RETAIN_KEYS or key.startswith((DELETE_FROM, SET_ORDER))
        if value is not None and not directive and key not in retained:
            raise PatchError(BAD_RETAIN_KEYS)
    return {key: value for key, value in old.items() if key in retained}


def _field_of(key: str, prefix: str, problem: str) -> str:
    head, slash, field = key.partition("/")
    if head != prefix or not slash:
        raise PatchError(problem)
    return field


def _put(merged: Object, key: str, value: Any, schema: str) -> None:
    """One field of the patch that is neither null nor a directive."""
    old = merged.get(key)
    if isinstance(old, dict) and isinstance(value, dict):
        meta = _meta(schema, key)
        merged[key] = value if meta.replaces else _merge_object(old, value, meta.schema)
    elif isinstance(old, list) and isinstance(value, list):
        meta = _meta(schema, key)
        merged[key] = _merge_list(old, value, meta)[0] if meta.merges else value
    elif isinstance(value, dict) and DIRECTIVE in value:
        merged.pop(key, None)  # a directive about something that is not there
    else:
        merged[key] = _plain(value)


def _meta(schema: str, key: str) -> PatchMeta:
    meta = patch_meta(schema, key)
    if not meta.known:
        struct = schema.rpartition(".")[2]
        raise PatchError(f'unable to find api field in struct {struct} for the json field "{key}"')
    return meta


def _plain(value: Any) -> Any:
    """A new value as it is stored: without nulls, and without what carries a `$patch` directive."""
    if isinstance(value, dict):
        return {
            key: _plain(member)
            for key, member in value.items()
            if member is not None and not (isinstance(member, dict) and DIRECTIVE in member)
        }
    if isinstance(value, list):
        return [_plain(item) for item in value if not (isinstance(item, dict) and DIRECTIVE in item)]
    return value


def _delete_from_list(merged: Object, field: str, gone: Any) -> None:
    if gone is None:
        merged.pop(field, None)
        return
    if not isinstance(gone, list):
        raise PatchError(BAD_PRIMITIVE_LIST)
    old = merged.get(field)
    if isinstance(old, list):
        merged[field] = [item for item in old if not any(same(item, other) for other in gone)]


# --- lists ---


def _merge_ordered_lists(merged: Object, patch: Object, schema: str) -> set[str]:
    """Carry out every `$setElementOrder/<field>`, together with the patch of that field.

    Order: the directive's, then the patch's, then the old list's. Returns the fields that are done.
    """
    done: set[str] = set()
    for key, order in patch.items():
        if not key.startswith(SET_ORDER):
            continue
        require_list(order, BAD_SET_ELEMENT_ORDER)
        field = _field_of(key, SET_ORDER, BAD_SET_ELEMENT_ORDER)
        old, new = merged.get(field), patch.get(field)
        for side in (old, new):
            require_list(side if side is not None else [], BAD_SET_ELEMENT_ORDER)
        meta = _meta(schema, field)
        validate_order(new or [], order, meta.merge_key)
        if new is None and field in patch:
            merged.pop(field, None)
        elif old is not None or new is not None:
            merged[field] = _ordered(old, new, order, meta)
        done.add(field)
    return done


def _ordered(old: list[Any] | None, new: list[Any] | None, order: list[Any], meta: PatchMeta) -> list[Any]:
    before = old or []
    if old is None:
        contents = _plain(new)
    elif new is None:
        contents = old
    elif not meta.merges:
        contents = new
    else:
        contents, before = _merge_list(old, new, meta)
    return in_order(contents, order, before, meta.merge_key)


def _merge_list(old: list[Any], patch: list[Any], meta: PatchMeta) -> tuple[list[Any], list[Any]]:
    """(the merged list, the old order as `$setElementOrder` sees it).

    That order has new items in the places that deleted ones left: upstream's slices share their array, and
    its tests hold the outcome fast.
    """
    if not old and not patch:
        return old, old
    if element_kind(old, patch) is not dict:
        return in_order(merge_scalars(old, patch), patch, old, ""), old
    if not meta.merge_key:
        raise PatchError("cannot merge lists without merge key for this field")
    kept, plain_patch = _without_directives(old, patch, meta.merge_key)
    if plain_patch is None:
        return kept, old
    merged = _merge_items(kept, plain_patch, meta)
    return in_order(merged, plain_patch, kept, meta.merge_key), merged[: len(old)]


def _without_directives(
    old: list[Object], patch: list[Object], merge_key: str
) -> tuple[list[Object], list[Object] | None]:
    """Carry out `$patch: delete` items; (what is left of old, the patch's other items).

    With a `$patch: replace` item the others are the whole list: (they, None).
    """
    others: list[Object] = []
    gone: list[Any] = []
    replace = False
    for item in patch:
        directive = item.get(DIRECTIVE)
        if DIRECTIVE not in item:
            others.append(item)
        elif directive == "delete":
            gone.append(_key_of(item, merge_key))
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise PatchError("merging lists cannot yet be specified in the patch")
        else:
            raise PatchError(f"unknown patch type: {directive} in map: {item}")
    if replace:
        return others, None
    kept = [item for item in old if not any(same(item.get(merge_key), key) for key in gone)] if gone else old
    return kept, others


def _key_of(item: Object, merge_key: str) -> Any:
    if merge_key not in item:
        raise PatchError(f"map: {item} does not contain declared merge key: {merge_key}")
    return item[merge_key]


def _merge_items(old: list[Object], patch: list[Object], meta: PatchMeta) -> list[Object]:
    """Each item of the patch goes into the first old item with the same key, or is added."""
    merged = list(old)
    places: dict[Any, int] = {}
    for place in range(len(merged) - 1, -1, -1):
        places[_place_key(merged[place].get(meta.merge_key))] = place
    for item in patch:
        key = _place_key(_key_of(item, meta.merge_key))
        if key in places:
            merged[places[key]] = _merge_object(merged[places[key]], item, meta.schema)
        else:
            places[key] = len(merged)
            merged.append(item)
    return merged


def _place_key(value: Any) -> tuple[type, Any]:
    if isinstance(value, dict | list):
        raise PatchError("a merge key must be a string, a number or a boolean")
    return type(value), value
