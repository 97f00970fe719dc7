"""Garbage plans: what becomes of an object, by the state of its owners and dependents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkube.controllers.core import garbage
from raftkube.controllers.core.garbage import Collect, Disown, Finish, Leave, Orphan, OwnerState, Visit

SOLID, ABSENT, WAITING = OwnerState.SOLID, OwnerState.ABSENT, OwnerState.WAITING
Object = dict[str, Any]


def item(
    *owners: str, finalizers: tuple[str, ...] = (), deleting: bool = False, blocks: bool = True
) -> Object:
    metadata: Object = {"name": "x", "uid": "x", "finalizers": list(finalizers)}
    metadata["ownerReferences"] = [{"uid": uid, "blockOwnerDeletion": blocks} for uid in owners]
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata}


WAITS = item("x", finalizers=("foregroundDeletion",), deleting=True)
TABLE = {
    "no owners": (item(), {}, [], Leave()),
    "a living owner": (item("a"), {"a": SOLID}, [], Leave()),
    "a gone owner": (item("a"), {"a": ABSENT}, [], Collect("Background")),
    "one of two gone": (item("a", "b"), {"a": ABSENT, "b": SOLID}, [], Disown(("a",))),
    "one waits, one lives": (item("a", "b"), {"a": WAITING, "b": SOLID}, [], Disown(("a",))),
    "both gone": (item("a", "b"), {"a": ABSENT, "b": ABSENT}, [], Collect("Background")),
    "an owner waits": (item("a"), {"a": WAITING}, [], Collect("Background")),
    "an owner waits, with dependents": (item("a"), {"a": WAITING}, [item("x")], Collect("Foreground")),
    "a circle of waiting": (item("a"), {"a": WAITING}, [WAITS], Collect("Foreground", unblock=True)),
    "an earlier wish to orphan": (
        item("a", finalizers=("orphan",)), {"a": ABSENT}, [], Collect("Orphan"),
    ),
    "being deleted already": (item("a", deleting=True), {"a": ABSENT}, [], Leave()),
    "to orphan": (item(finalizers=("orphan",), deleting=True), {}, [item("x")], Orphan()),
    "foreground, nobody left": (
        item(finalizers=("foregroundDeletion",), deleting=True), {}, [], Finish("foregroundDeletion"),
    ),
    "foreground, only those that do not block": (
        item(finalizers=("foregroundDeletion",), deleting=True), {}, [item("x", blocks=False)],
        Finish("foregroundDeletion"),
    ),
    "foreground, one blocks": (
        item(finalizers=("foregroundDeletion",), deleting=True), {}, [item("x")], Visit((item("x"),)),
    ),
    "foreground, one is on its way": (
        item(finalizers=("foregroundDeletion",), deleting=True), {}, [item("x", deleting=True)], Visit(()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_what_becomes_of_it(case: tuple[Object, dict[str, OwnerState], list[Object], garbage.Action]) -> None:
    obj, owners, dependents, expected = case
    assert garbage.plan(obj, owners, dependents) == expected


@given(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(OwnerState), max_size=4),
    st.booleans(),
    st.sampled_from([(), ("orphan",), ("foregroundDeletion",), ("example.com/x",)]),
    st.booleans(),
)
def test_nothing_with_a_living_owner_or_none_is_ever_collected(
    owners: dict[str, OwnerState], deleting: bool, finalizers: tuple[str, ...], with_dependents: bool
) -> None:
    obj = item(*owners, finalizers=finalizers, deleting=deleting)
    action = garbage.plan(obj, owners, [item("x")] if with_dependents else [])
    if SOLID in owners.values() or not owners:
        assert not isinstance(action, Collect)
    if isinstance(action, Disown):
        assert all(owners[uid] is not SOLID for uid in action.owner_uids)
