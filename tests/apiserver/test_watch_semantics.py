"""What a watch promises: from where it starts, what it shows, how it ends; and several servers agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from api_world import Client, Json, config_map, pod, world

from raftkube.net.http_client import ResponseLost

CM = "/api/v1/namespaces/default/configmaps"
ALL_CM = "/api/v1/configmaps"
PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


async def version(client: Client) -> str:
    listed = await client.get(ALL_CM)
    return str(listed.body["metadata"]["resourceVersion"])


async def test_without_version_the_state_comes_first(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        for name in ("a", "b"):
            await client.post(CM, config_map(name))
        for query in ("", "?resourceVersion=0"):
            async with client.watch(CM + query) as watch:
                assert await watch.names(2) == [("ADDED", "a"), ("ADDED", "b")]
        async with client.watch(CM) as watch:
            await watch.names(2)
            await client.put(f"{CM}/a", config_map("a", {"x": "y"}))
            await client.delete(f"{CM}/b")
            await client.post(CM, config_map("c"))
            assert await watch.names(3) == [("MODIFIED", "a"), ("DELETED", "b"), ("ADDED", "c")]


async def test_from_a_version_every_later_event_and_no_state(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(CM, config_map("a"))
        start = await version(client)
        await client.post(CM, config_map("b"))
        gone = await client.delete(f"{CM}/a")
        assert gone.body["status"] == "Success"
        async with client.watch(f"{ALL_CM}?resourceVersion={start}") as watch:
            added, deleted = await watch.next(), await watch.next()
        assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "b")
        assert (deleted["type"], deleted["object"]["metadata"]["name"]) == ("DELETED", "a")
        # A deletion carries its own revision, not the object's last one.
        assert int(deleted["object"]["metadata"]["resourceVersion"]) == int(await version(client))


async def test_namespaces_and_names_are_kept_apart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client, other = w.client(), "/api/v1/namespaces/kube-public/configmaps"
        async with (
            client.watch(f"{CM}?resourceVersion={await version(client)}") as watch,
            client.watch(f"{CM}?fieldSelector=metadata.name%3Db&resourceVersion=0") as named,
            client.watch(f"{CM}/b?resourceVersion=0") as by_path,
        ):
            await client.post(other, config_map("elsewhere"))
            await client.post(CM, config_map("a"))
            await client.post(CM, config_map("b"))
            assert await watch.names(2) == [("ADDED", "a"), ("ADDED", "b")]
            assert await named.names(1) == [("ADDED", "b")]
            assert await by_path.names(1) == [("ADDED", "b")]


async def test_objects_come_into_sight_and_leave_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(CM, config_map("a", labels={"tier": "back"}))
        async with client.watch(f"{CM}?labelSelector=tier%3Dfront&resourceVersion=0") as watch:
            for tier in ("front", "front", "back", "front"):
                body = {"metadata": {"labels": {"tier": tier}, "annotations": {"n": tier + "!"}}}
                await client.patch(f"{CM}/a", body)
                await client.patch(f"{CM}/a", {"data": {"tick": tier}})
            await client.delete(f"{CM}/a")
            kinds = [kind for kind, _ in await watch.names(6)]
        assert kinds[:2] == ["ADDED", "MODIFIED"]
        assert kinds[-1] == "DELETED"
        assert kinds.count("DELETED") == 2
        assert kinds.count("ADDED") == 2


async def test_a_field_selector_follows_the_field(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        async with client.watch(f"{PODS}?fieldSelector=spec.nodeName%3Dnode-1") as watch:
            assert (await client.post(PODS, pod("p"))).code == 201
            await client.post(f"{PODS}/p/binding", {"target": {"kind": "Node", "name": "node-1"}})
            assert await watch.names(1) == [("ADDED", "p")]


async def test_a_version_beyond_the_log_is_an_expired_error_event(tmp_path: Path) -> None:
    async with world(tmp_path, history_events=4) as w:
        client = w.client()
        start = await version(client)
        for number in range(20):
            await client.patch(f"{CM}/a", {"data": {"n": str(number)}}) if number else await client.post(
                CM, config_map("a")
            )
        async with client.watch(f"{CM}?resourceVersion={start}") as watch:
            event = await watch.next()
            assert await watch.at_end()
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        assert event["object"]["kind"] == "Status"


async def test_a_timeout_ends_the_stream_cleanly_with_a_bookmark(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        current = await version(client)
        query = f"resourceVersion={current}&timeoutSeconds=1&allowWatchBookmarks=true"
        async with client.watch(f"{CM}?{query}") as watch:
            event = await watch.next()
            assert await watch.at_end()
        assert event["type"] == "BOOKMARK"
        assert (event["object"]["kind"], event["object"]["apiVersion"]) == ("ConfigMap", "v1")
        assert int(event["object"]["metadata"]["resourceVersion"]) >= int(current)


async def test_initial_events_end_with_their_bookmark(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(CM, config_map("a"))
        query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        async with client.watch(f"{CM}?{query}") as watch:
            first, end = await watch.next(), await watch.next()
            assert (first["type"], end["type"]) == ("ADDED", "BOOKMARK")
            assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
            await client.post(CM, config_map("b"))
            assert await watch.names(1) == [("ADDED", "b")]
        none = f"{CM}?resourceVersionMatch=NotOlderThan&sendInitialEvents=false"
        async with client.watch(none) as watch:
            await client.post(CM, config_map("c"))
            assert await watch.names(1) == [("ADDED", "c")]


async def test_tables_in_events_carry_columns_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(CM, config_map("a"))
        async with (
            client.watch(CM, Accept=TABLE) as tables,
            client.watch(CM, Accept=METADATA) as partial,
        ):
            await client.post(CM, config_map("b"))
            first, second = await tables.next(), await tables.next()
            metadata = [await partial.next(), await partial.next()]
        assert first["object"]["kind"] == second["object"]["kind"] == "Table"
        assert first["object"]["columnDefinitions"][0]["name"] == "Name"
        assert second["object"]["columnDefinitions"] is None
        row: Any = second["object"]["rows"][0]
        assert row["cells"][0] == "b"
        assert row["object"]["kind"] == "PartialObjectMetadata"
        assert [event["object"]["kind"] for event in metadata] == ["PartialObjectMetadata"] * 2
        assert "data" not in metadata[1]["object"]


async def test_a_watch_at_another_server_waits_for_the_version(tmp_path: Path) -> None:
    async with world(tmp_path, servers=2) as w:
        first, second = w.client(server=0), w.client(server=1)
        for number in range(10):
            name = f"m{number}"
            created = await first.post(CM, config_map(name))
            seen = created.body["metadata"]["resourceVersion"]
            # Every kind of read at the other server knows of it at once.
            assert (await second.get(f"{CM}/{name}")).code == 200
            listed = await second.get(CM)
            assert name in [item["metadata"]["name"] for item in listed.body["items"]]
            not_older = await second.get(f"{CM}/{name}?resourceVersion={seen}")
            assert not_older.body["metadata"]["resourceVersion"] == seen
            async with second.watch(f"{CM}?resourceVersion={int(seen) - 1}") as watch:
                assert await watch.names(1) == [("ADDED", name)]


async def test_two_servers_never_both_win(tmp_path: Path) -> None:
    async with world(tmp_path, servers=2) as w:
        clients = [w.client(server=0), w.client(server=1)]
        base = (await clients[0].post(CM, config_map("a"))).body
        codes: list[int] = []

        async def put(client: Client, value: str) -> None:
            codes.append((await client.put(f"{CM}/a", {**base, "data": {"by": value}})).code)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(put, clients[number % 2], str(number))
        assert sorted(codes) == [200, *[409] * 5]


async def test_unconditional_patches_through_two_servers_all_count(tmp_path: Path) -> None:
    async with world(tmp_path, servers=2) as w:
        clients = [w.client(server=0), w.client(server=1)]
        await clients[0].post(CM, config_map("a"))

        async def add(client: Client, key: str) -> None:
            assert (await client.patch(f"{CM}/a", {"data": {key: "x"}})).code == 200

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(add, clients[number % 2], f"k{number}")
        found = await clients[0].get(f"{CM}/a")
        assert len(found.body["data"]) == 20


async def test_events_are_the_same_through_both_servers(tmp_path: Path) -> None:
    async with world(tmp_path, servers=2) as w:
        clients = [w.client(server=0), w.client(server=1)]
        start = await version(clients[0])
        for number in range(30):
            await clients[number % 2].post(CM, config_map(f"m{number}"))
        seen: list[list[Json]] = []
        for client in clients:
            async with client.watch(f"{CM}?resourceVersion={start}") as watch:
                seen.append([await watch.next() for _ in range(30)])
        assert seen[0] == seen[1]
        revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen[0]]
        assert revisions == sorted(set(revisions))


async def test_stopping_ends_watches_cleanly_and_refuses_new_connections(tmp_path: Path) -> None:
    stop = trio.Event()
    async with world(tmp_path) as w:
        await w.start(stop=stop)
        client = w.client(server=1)
        async with client.watch(f"{CM}?resourceVersion={await version(client)}") as watch:
            stop.set()
            assert await watch.at_end()
        with trio.fail_after(20):
            while True:
                try:
                    await w.network.connect(w.addresses[1], None)
                except OSError:
                    break
        assert (await w.client(server=0).get(CM)).code == 200


async def test_a_watcher_that_does_not_read_is_cut_off_and_hinders_nobody(tmp_path: Path) -> None:
    async with world(tmp_path, history_events=8) as w:
        client = w.client()
        big = "x" * 400_000
        async with client.watch(CM) as slow, client.watch(CM) as quick:
            for number in range(60):
                assert (await client.post(CM, config_map(f"m{number}", {"k": big}))).code == 201
                assert await quick.names(1) == [("ADDED", f"m{number}")]
            with pytest.raises(ResponseLost):
                await slow.names(60)
