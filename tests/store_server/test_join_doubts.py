"""An empty directory takes no id that anybody knows to be at work, nor one that only its own past gave it."""

from __future__ import annotations

import pytest
import trio
from test_member_changes import ChangingStore, simulate

from raftkube.errors import Indefinite
from raftkube.store.client import StoreClient
from raftkube.store.server.join import place_in

OLD: dict[str, object] = {
    "name": "store-2", "id": "store-2", "learner": False, "started": True, "committed": True,
}  # fmt: skip
NEW = OLD | {"id": "store-2#00000001", "learner": True, "started": False}


def test_a_crash_while_the_identity_is_written_leaves_an_empty_directory() -> None:
    async def scenario(store: ChangingStore, client: StoreClient) -> None:
        await client.put(b"k", b"v")
        await store.crash("store-2")
        store.add_machine("store-2")
        await client.member_remove("store-2")
        id_ = await client.member_add("store-2", "store-2:2380", "store-2:2379")
        store.disks["store-2"].open("identity.tmp", create=True).append(b"half of one")
        with trio.fail_after(60):
            await store.start("store-2")
            await store.wait_voter(client, id_)
        assert store.failures == []

    simulate(scenario)


def test_one_member_that_knows_the_id_to_be_at_work_is_enough() -> None:
    """store-1, asked first, has never met store-4."""

    async def scenario(store: ChangingStore, client: StoreClient) -> None:
        await client.put(b"k", b"v")
        await client.move_leader("store-3")
        store.add_machine("store-4")
        for source, target in (("store-1", "store-4"), ("store-4", "store-1")):
            store.network.cut(source, target)
        id_ = await client.member_add("store-4", "store-4:2380", "store-4:2379", learner=True)
        store.known_clients = {name: at for name, at in store.clients.items() if name != "store-1"}
        await store.start("store-4")
        started = False
        while not started:
            await trio.sleep(0.1)
            listed = await client.member_list()
            started = next(bool(each["started"]) for each in listed if each["id"] == id_)
        await store.crash("store-4")
        store.network.heal()
        store.add_machine("store-4")
        store.known_clients = dict(store.clients)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.start, "store-4")
            await trio.sleep(20)
            assert store.failures == []  # it waits, for a place that is its own
            await client.member_remove("store-4")
            id_ = await client.member_add("store-4", "store-4:2380", "store-4:2379")
            await store.wait_voter(client, id_)

    simulate(scenario)


def test_a_list_of_before_the_change_holds_nobody_up() -> None:
    assert place_in("store-2", [[OLD], [NEW]]) == 1
    assert place_in("store-2", [[NEW | {"committed": False}], [NEW]]) == 1
    assert "not known to be committed" in str(place_in("store-2", [[NEW | {"committed": False}]]))
    assert "kv member replace store-2" in str(place_in("store-2", [[NEW | {"started": True}], [NEW]]))
    assert "kv member replace store-2" in str(place_in("store-2", [[NEW], [NEW | {"learner": False}]]))
    assert "there is no member" in str(place_in("store-2", [[]]))
    assert "do not agree yet" in str(place_in("store-2", [[NEW], [NEW | {"id": "store-2#00000002"}]]))


def test_an_id_that_was_never_committed_is_nobodys() -> None:
    """A leader that was cut off has it in its log and lists it; its successor's log does not hold it."""

    async def scenario(store: ChangingStore, client: StoreClient) -> None:
        await client.put(b"k", b"v")
        await client.move_leader("store-1")
        await client.put(b"k", b"v")
        await trio.sleep(1)
        store.network.partition({"store-2", "store-3"}, {"store-1", "store-4", "client"})
        with pytest.raises(Indefinite):
            await client.member_add("store-4", "store-4:2380", "store-4:2379")
        store.add_machine("store-4")
        store.known_clients = {"store-1": store.clients["store-1"]}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.start, "store-4")
            await trio.sleep(5)
            store.network.heal()
            await client.put(b"k", b"w")
            id_ = await client.member_add("store-4", "store-4:2380", "store-4:2379")
            with trio.fail_after(60):
                await store.wait_voter(client, id_)
        assert store.failures == []

    simulate(scenario)
