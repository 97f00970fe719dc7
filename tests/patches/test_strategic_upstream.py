"""Strategic merge patch against upstream's own cases, with upstream's own test schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raftkube.api import schemas
from raftkube.api.objects import copy_json
from raftkube.api.status import ApiError
from raftkube.apiserver.core.patches import apply_strategic_patch

UPSTREAM = json.loads(Path(__file__).with_name("upstream_strategic.json").read_text())
APPLIED = [case for case in UPSTREAM["cases"] if "result" in case]
REFUSED = [case for case in UPSTREAM["cases"] if "error" in case]


def merging(item: str, strategy: str = "merge") -> dict[str, Any]:
    return {
        "type": "array", "items": {"$ref": f"#/$defs/{item}"}, "x-kubernetes-patch-merge-key": "name",
        "x-kubernetes-patch-strategy": strategy,
    }  # fmt: skip


TEXT, NUMBERS = {"type": "string"}, {"type": "array", "items": {"type": "integer"}}
COMMON: dict[str, Any] = {
    "name": TEXT, "value": TEXT, "other": TEXT,
    "mergingList": merging("mergeItem"),
    "nonMergingList": {"type": "array", "items": {"$ref": "#/$defs/mergeItem"}},
    "mergingIntList": NUMBERS | {"x-kubernetes-patch-strategy": "merge"},
    "nonMergingIntList": NUMBERS,
    "simpleMap": {"type": "object", "additionalProperties": TEXT},
}  # fmt: skip
# testdata/swagger-merge-item.json beside patch_test.go.
DEFINITIONS: dict[str, Any] = {
    "retainKeysMergeItem": {"type": "object", "properties": COMMON},
    "mergeItem": {
        "type": "object",
        "properties": COMMON | {
            "mergeItemPtr": merging("mergeItem"),
            "replacingItem": {"type": "object", "x-kubernetes-patch-strategy": "replace"},
            "retainKeysMap": {
                "$ref": "#/$defs/retainKeysMergeItem", "x-kubernetes-patch-strategy": "retainKeys",
            },
            "retainKeysMergingList": merging("mergeItem", "merge,retainKeys"),
        },
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _merge_item_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "definition", DEFINITIONS.__getitem__)


@pytest.mark.parametrize("case", APPLIED, ids=lambda case: case["name"])
def test_a_patch_makes_what_upstream_makes(case: dict[str, Any]) -> None:
    old, patch = copy_json(case["object"]), copy_json(case["patch"])
    assert apply_strategic_patch(old, patch, "mergeItem") == case["result"]
    assert (old, patch) == (case["object"], case["patch"]), "the arguments must not change"


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_a_patch_that_upstream_refuses_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        apply_strategic_patch(case["object"], case["patch"], "mergeItem")
    assert caught.value.code == 400


def test_the_cases_are_all_there() -> None:
    assert len(APPLIED) >= 250
    assert len(REFUSED) == 3
