"""Informers against a scripted API: gaps, 410, failover, own writes, indexes."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkube.api.status import ApiError
from raftkube.client.cache import INDEXES, NAMESPACE, NODE, OWNER_UID, Cache
from raftkube.client.endpoints import PODS, Object, object_key
from raftkube.client.informer import Informer
from raftkube.rng import seeded_rng
from raftkube.testing.fake_api import Call, FakeApi


def pod(name: str, *, node: str = "", namespace: str = "default", owner: str = "") -> Object:
    metadata: Object = {"name": name, "namespace": namespace}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "kind": "ReplicaSet", "name": "x", "controller": True}]
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}}


class Followed:
    """An informer of pods with what its handlers heard."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.informer = Informer(api.client(), PODS, rng=seeded_rng(1), indexes=INDEXES)
        self.heard: list[str] = []
        self.informer.add_handlers(
            added=lambda new: self.heard.append("+" + object_key(new)),
            updated=lambda old, new: self.heard.append("~" + object_key(new)),
            deleted=lambda old: self.heard.append("-" + object_key(old)),
        )

    async def caught_up(self) -> None:
        with trio.fail_after(120):
            await self.informer.wait_until(self.api.revision)

    def in_step(self) -> bool:
        mine = {object_key(obj): obj for obj in self.informer.list()}
        theirs = {object_key(obj): obj for obj in self.api.all(PODS)}
        return {k: v["metadata"]["resourceVersion"] for k, v in mine.items()} == {
            k: v["metadata"]["resourceVersion"] for k, v in theirs.items()
        }


async def test_follows_changes(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    api.put(PODS, pod("a"))
    followed = Followed(api)
    async with trio.open_nursery() as nursery:
        await nursery.start(followed.informer.run)
        assert followed.heard == ["+default/a"]
        api.put(PODS, pod("a", node="node-1"))
        api.put(PODS, pod("b"))
        api.remove(PODS, "b", "default")
        await followed.caught_up()
        assert followed.heard == ["+default/a", "~default/a", "+default/b", "-default/b"]
        assert followed.informer.get("a", "default")["spec"]["nodeName"] == "node-1"
        assert followed.in_step()
        nursery.cancel_scope.cancel()


async def test_a_broken_watch_resumes_without_listing_again(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    followed = Followed(api)
    async with trio.open_nursery() as nursery:
        await nursery.start(followed.informer.run)
        for number in range(5):
            api.put(PODS, pod(f"p{number}"))
            await followed.caught_up()
            api.break_watches()
        api.put(PODS, pod("last"))
        await followed.caught_up()
        nursery.cancel_scope.cancel()
    assert followed.in_step()
    lists = [call for call in api.calls if "watch" not in call.query]
    assert len(lists) == 1
    assert len(followed.heard) == 6


async def test_goes_on_at_another_server(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    followed = Followed(api)
    async with trio.open_nursery() as nursery:
        await nursery.start(followed.informer.run)
        for number in range(6):
            api.servers[number % 2].down = True
            api.servers[1 - number % 2].down = False
            api.put(PODS, pod(f"p{number}"))
            await followed.caught_up()
        nursery.cancel_scope.cancel()
    assert followed.in_step()
    assert {call.server for call in api.calls} == {0, 1}
    assert len([call for call in api.calls if "watch" not in call.query]) == 1


async def test_410_lists_again_and_tells_the_difference(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    for name in ("kept", "changed", "gone", "reborn"):
        api.put(PODS, pod(name))
    followed = Followed(api)
    async with trio.open_nursery() as nursery:
        await nursery.start(followed.informer.run)
        for server in api.servers:
            server.down = True
        api.break_watches()
        followed.heard.clear()
        api.put(PODS, pod("changed", node="node-1"))
        api.remove(PODS, "gone", "default")
        api.remove(PODS, "reborn", "default")
        api.put(PODS, pod("reborn"))
        api.put(PODS, pod("new"))
        api.compact()
        for server in api.servers:
            server.down = False
        await followed.caught_up()
        nursery.cancel_scope.cancel()
    assert sorted(followed.heard) == sorted(
        ["~default/changed", "-default/gone", "-default/reborn", "+default/reborn", "+default/new"]
    )
    assert followed.in_step()


async def test_survives_errors_of_every_kind_before_the_first_list(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api = FakeApi()
    api.put(PODS, pod("a"))
    left = [ApiError(code, "x", "no") for code in (500, 403, 401, 500, 504, 410)]

    def refuse(call: Call) -> None:
        if left:
            raise left.pop()

    api.intercept = refuse
    followed = Followed(api)
    async with trio.open_nursery() as nursery:
        await nursery.start(followed.informer.run)
        assert followed.informer.synced
        assert followed.in_step()
        nursery.cancel_scope.cancel()


async def test_waits_for_its_own_writes(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    client = api.client()
    followed = Followed(api)
    async with trio.open_nursery() as nursery:
        await nursery.start(followed.informer.run)
        for number in range(10):
            followed.informer.wrote(await client.create(PODS, pod(f"p{number}")))
            await followed.informer.wait_for_writes()
            assert followed.informer.get(f"p{number}", "default") is not None
        nursery.cancel_scope.cancel()


async def test_bookmarks_move_the_revision_on(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    followed = Followed(api)
    async with trio.open_nursery() as nursery:
        await nursery.start(followed.informer.run)
        api.revision += 100  # other resources
        api.bookmark()
        await followed.caught_up()
        api.compact()
        api.break_watches()
        api.put(PODS, pod("a"))
        await followed.caught_up()
        nursery.cancel_scope.cancel()
    assert len([call for call in api.calls if "watch" not in call.query]) == 1


async def test_a_server_that_ends_every_watch_is_not_hammered(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    followed = Followed(api)

    def end(call: Call) -> None:
        if "watch" in call.query:
            raise ApiError(500, "InternalError", "no watches today")

    api.intercept = end
    async with trio.open_nursery() as nursery:
        await nursery.start(followed.informer.run)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert 5 <= len(api.calls) <= 30


def test_indexes_follow_their_objects() -> None:
    cache = Cache(INDEXES)
    cache.put(pod("a", owner="u1"))
    cache.put(pod("b", node="n1", owner="u1"))
    cache.put(pod("b", node="n2", owner="u2"))
    assert [object_key(o) for o in cache.by_index(OWNER_UID, "u1")] == ["default/a"]
    assert cache.by_index(NODE, "n1") == []
    assert [object_key(o) for o in cache.by_index(NODE, "n2")] == ["default/b"]
    assert len(cache.by_index(NAMESPACE, "default")) == 2
    cache.remove("default/b")
    assert cache.by_index(NODE, "n2") == []
    with pytest.raises(KeyError):
        cache.by_index("nonsense", "x")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "n1", "n2"]), st.booleans())))
def test_index_equals_a_scan(steps: list[tuple[str, str, bool]]) -> None:
    cache = Cache({NODE: INDEXES[NODE]})
    for name, node, remove in steps:
        if remove:
            cache.remove(f"default/{name}")
        else:
            cache.put(pod(name, node=node))
        for value in ("n1", "n2"):
            scanned = {object_key(o) for o in cache.list() if o["spec"].get("nodeName") == value}
            assert {object_key(o) for o in cache.by_index(NODE, value)} == scanned


FAULTS = ("put", "put", "put", "delete", "cut", "flip", "compact", "bookmark", "lag")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 5)), max_size=50))
def test_whatever_breaks_the_cache_ends_equal_and_handlers_heard_all(
    script: list[tuple[str, int]],
) -> None:
    """Handlers' own copy, built of nothing but what they heard, equals the API's state at the end, and the
    revision never went back."""

    async def run() -> None:
        api = FakeApi()
        followed = Followed(api)
        copy: dict[str, str] = {}

        def follow(old: Object | None, new: Object | None) -> None:
            key = object_key(new or old or {})
            assert (old is None) == (key not in copy)
            if new is None:
                del copy[key]
            else:
                copy[key] = new["metadata"]["resourceVersion"]

        followed.informer.on_change(follow)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(followed.informer.run)
            for action, number in script:
                before = followed.informer.revision
                await _act(api, action, number)
                assert followed.informer.revision >= before
            for server in api.servers:
                server.down = False
            api.put(PODS, pod("last"))
            await followed.caught_up()
            nursery.cancel_scope.cancel()
        assert followed.in_step()
        assert copy == {object_key(obj): obj["metadata"]["resourceVersion"] for obj in api.all(PODS)}

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def _act(api: FakeApi, action: str, number: int) -> None:
    name = f"p{number}"
    match action:
        case "put":
            api.put(PODS, pod(name, node=f"n{number}"))
        case "delete" if api.find(PODS, name, "default") is not None:
            api.remove(PODS, name, "default")
        case "cut":
            api.break_watches()
        case "flip":
            api.servers[number % 2].down = not api.servers[number % 2].down
            api.break_watches()
        case "compact":
            api.compact()
        case "bookmark":
            api.bookmark()
        case _:
            await trio.sleep(number * 0.3)
