"""JSON patch against RFC 6902's examples, merge patch against RFC 7386's, and the server's own bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkube.api.objects import copy_json
from raftkube.api.status import ApiError
from raftkube.apiserver.core.patches import apply_json_patch, apply_merge_patch
from raftkube.apiserver.core.patches.json_patch import OPERATIONS_MAX


def op(word: str, path: str, **members: Any) -> dict[str, Any]:
    return {"op": word, "path": path, **members}


MOVED = {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}
RFC_6902 = {
    "A.1 adding an object member": (
        {"foo": "bar"}, [op("add", "/baz", value="qux")], {"foo": "bar", "baz": "qux"}),
    "A.2 adding an array element": (
        {"foo": ["bar", "baz"]}, [op("add", "/foo/1", value="qux")], {"foo": ["bar", "qux", "baz"]}),
    "A.3 removing an object member": ({"baz": "qux", "foo": "bar"}, [op("remove", "/baz")], {"foo": "bar"}),
    "A.4 removing an array element": (
        {"foo": ["bar", "qux", "baz"]}, [op("remove", "/foo/1")], {"foo": ["bar", "baz"]}),
    "A.5 replacing a value": (
        {"baz": "qux", "foo": "bar"}, [op("replace", "/baz", value="boo")], {"baz": "boo", "foo": "bar"}),
    "A.6 moving a value": (
        MOVED, [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
    "A.7 moving an array element": (
        {"foo": ["all", "grass", "cows", "eat"]}, [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]}),
    "A.8 testing a value: success": (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [op("test", "/baz", value="qux"), op("test", "/foo/1", value=2)],
        {"baz": "qux", "foo": ["a", 2, "c"]}),
    "A.10 adding a nested member object": (
        {"foo": "bar"}, [op("add", "/child", value={"grandchild": {}})],
        {"foo": "bar", "child": {"grandchild": {}}}),
    "A.11 ignoring unrecognized elements": (
        {"foo": "bar"}, [op("add", "/baz", value="qux", xyz=123)], {"foo": "bar", "baz": "qux"}),
    "A.14 ~ escape ordering": ({"/": 9, "~1": 10}, [op("test", "/~01", value=10)], {"/": 9, "~1": 10}),
    "A.16 adding an array value": (
        {"foo": ["bar"]}, [op("add", "/foo/-", value=["abc", "def"])], {"foo": ["bar", ["abc", "def"]]}),
    "copy": ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
    "add null": ({}, [op("add", "/a", value=None)], {"a": None}),
    "test null where nothing is (upstream's library)": ({}, [op("test", "/a", value=None)], {}),
    "a test without a value tests for null": ({}, [op("test", "/a")], {}),
    "an escaped label": ({"metadata": {"labels": {}}}, [op("add", "/metadata/labels/a.b~1c", value="x")],
        {"metadata": {"labels": {"a.b/c": "x"}}}),
    "no operations": ({"a": 1}, [], {"a": 1}),
    "replace everything": ({"a": 1}, [op("replace", "", value={"b": 2})], {"b": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", RFC_6902)
def test_json_patch(name: str) -> None:
    old, patch, result = RFC_6902[name]
    before = copy_json([old, patch])
    assert apply_json_patch(old, patch) == result
    assert [old, patch] == before, "the arguments must not change"


UNPROCESSABLE = {
    "A.9 testing a value: error": ({"baz": "qux"}, [op("test", "/baz", value="bar")]),
    "A.12 adding to a nonexistent target": ({"foo": "bar"}, [op("add", "/baz/bat", value="qux")]),
    "A.15 comparing strings and numbers": ({"/": 9, "~1": 10}, [op("test", "/~01", value="10")]),
    "true is not 1": ({"a": True}, [op("test", "/a", value=1)]),
    "replace what is not there": ({}, [op("replace", "/a", value=1)]),
    "remove what is not there": ({}, [op("remove", "/a")]),
    "copy what is not there": ({}, [{"op": "copy", "from": "/a", "path": "/b"}]),
    "move into itself": ({"a": {}}, [{"op": "move", "from": "/a", "path": "/a/b"}]),
    "beyond the list": ({"a": []}, [op("add", "/a/1", value=1)]),
    "a word as an index": ({"a": []}, [op("add", "/a/x", value=1)]),
    "an index with a leading zero": ({"a": [1, 2]}, [op("remove", "/a/01")]),
    "a pointer that does not start with a slash": ({"a": 1}, [op("remove", "a")]),
    "a bad escape": ({"a": 1}, [op("remove", "/~2")]),
    "inside a string": ({"a": "x"}, [op("add", "/a/0", value=1)]),
    "the outcome is no object": ({}, [op("replace", "", value=[])]),
    "the whole document removed": ({"a": 1}, [op("remove", "")]),
}


@pytest.mark.parametrize("name", UNPROCESSABLE)
def test_an_operation_that_cannot_be_carried_out_is_422(name: str) -> None:
    old, patch = UNPROCESSABLE[name]
    before = copy_json(old)
    with pytest.raises(ApiError) as caught:
        apply_json_patch(old, patch)
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.message.startswith("the server rejected our request due to an error in our request: ")
    assert old == before


@pytest.mark.parametrize(
    "patch",
    [{}, "x", None, ["x"], [{}], [{"op": "add"}], [{"path": "/a"}], [op("spam", "/a")], [op("add", "/a")],
     [op("copy", "/a")], [{"op": "add", "path": 5, "value": 1}], [{"op": ["add"], "path": "/a"}],
     [op("move", "/a", **{"from": 1})], [op("replace", "/a")]],
    ids=str,
)  # fmt: skip
def test_a_patch_that_is_none_is_400(patch: Any) -> None:
    with pytest.raises(ApiError) as caught:
        apply_json_patch({"a": 1}, patch)
    assert caught.value.code == 400


def test_the_number_of_operations_is_bounded() -> None:
    operations = [op("test", "/a", value=1)] * (OPERATIONS_MAX + 1)
    assert apply_json_patch({"a": 1}, operations[:-1]) == {"a": 1}
    with pytest.raises(
        ApiError, match="The allowed maximum operations in a JSON patch is 10000, got 10001"
    ) as e:
        apply_json_patch({"a": 1}, operations)
    assert (e.value.code, e.value.reason) == (413, "RequestEntityTooLarge")


def test_copies_of_copies_are_bounded() -> None:
    patch = [op("add", "/0", value="x" * 1000)]
    patch += [{"op": "copy", "from": "", "path": f"/{n}"} for n in range(1, 60)]
    with pytest.raises(ApiError, match="copies add more than") as caught:
        apply_json_patch({}, patch)
    assert caught.value.code == 422


def test_a_patch_cannot_nest_without_end() -> None:
    patch = [op("add", "/a" * depth, value={}) for depth in range(1, 1_500)]
    with pytest.raises(ApiError) as caught:
        apply_json_patch({}, patch)
    assert caught.value.code == 422


# RFC 7386, appendix A: (original, patch, result), those whose documents are objects.
RFC_7386 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ({"a": "foo"}, {"b": None}, {"a": "foo"}),
    ({"a": 1}, {"a": {"b": None, "c": 2}}, {"a": {"c": 2}}),
    ({"a": {"b": 1}}, {}, {"a": {"b": 1}}),
]


@pytest.mark.parametrize(("old", "patch", "result"), RFC_7386, ids=str)
def test_merge_patch(old: Any, patch: Any, result: Any) -> None:
    before = copy_json([old, patch])
    assert apply_merge_patch(old, patch) == result
    assert [old, patch] == before, "the arguments must not change"


@pytest.mark.parametrize("patch", [[], "x", None, 1, True], ids=str)
def test_a_merge_patch_that_is_no_object_is_400(patch: Any) -> None:
    with pytest.raises(ApiError) as caught:
        apply_merge_patch({}, patch)
    assert caught.value.code == 400


KEYS = st.sampled_from(["a", "b", "c", "-", "0", ""])
VALUES = st.recursive(
    st.none() | st.integers(0, 3) | st.booleans() | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)
POINTERS = st.lists(KEYS, max_size=3).map(lambda parts: "".join(f"/{part}" for part in parts))
OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": POINTERS},
    optional={"value": VALUES, "from": POINTERS},
)


@given(OBJECTS, st.lists(OPERATIONS, max_size=5))
def test_any_json_patch_is_carried_out_or_refused(old: dict[str, Any], patch: list[Any]) -> None:
    before = copy_json([old, patch])
    try:
        result = apply_json_patch(old, patch)
    except ApiError as error:
        result = {"refused": error.code}
    assert isinstance(result, dict)
    assert result.get("refused") in (None, 400, 422)
    assert [old, patch] == before


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_applied_twice_changes_nothing_more(old: dict[str, Any], patch: dict[str, Any]) -> None:
    once = apply_merge_patch(old, patch)
    assert apply_merge_patch(once, patch) == once
