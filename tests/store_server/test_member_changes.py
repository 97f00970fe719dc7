"""Whole members that come, go and move, seen by clients: RPC, joining with an empty disk, roles, refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial

import pytest
import trio

from chaos.sim.clock import run_simulation
from chaos.sim.network import SimNetwork
from chaos.sim.simulated_store import NAMES, SimulatedStore
from raftkube.errors import (
    ConfigError,
    InvalidRequest,
    MembershipRefused,
    NoLeader,
    PermissionDenied,
    RaftkubeError,
    StoreError,
)
from raftkube.net import Address, PeerIdentity, TlsFiles
from raftkube.rng import seeded_rng
from raftkube.store.client import StoreClient
from raftkube.store.server.join import find_place, unfit
from raftkube.store.server.member import MemberConfig
from raftkube.wire import rpc


class ChangingStore(SimulatedStore):
    """Members as `raftkube up` starts them: new at first, existing afterwards. `tls`: roles are asked for."""

    def __init__(self, seed: int, nursery: trio.Nursery, *, tls: bool = False) -> None:
        super().__init__(seed, nursery)
        self.known_clients = dict(self.clients)
        self._tls = TlsFiles() if tls else None

    def config(self, name: str) -> MemberConfig:
        return MemberConfig(
            name=name,
            members=self.initial,
            listen_client=self.clients[name],
            listen_peer=self.peers[name],
            client_addresses=self.known_clients,
            cluster_state=self.states[name],
            client_tls=self._tls,
            raft=self.raft,
        )

    async def wait_voter(self, client: StoreClient, id_: str) -> None:
        while not any(each["id"] == id_ and each["voter"] for each in await client.member_list()):
            await trio.sleep(0.1)


Scenario = Callable[[ChangingStore, StoreClient], Awaitable[None]]


def simulate(scenario: Scenario, *, seed: int = 1, limit_s: float = 300.0) -> ChangingStore:
    made: list[ChangingStore] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            store = ChangingStore(seed, nursery)
            made.append(store)
            await store.start_all()
            with trio.fail_after(limit_s):
                async with store.client("client") as client:
                    await scenario(store, client)
            nursery.cancel_scope.cancel()

    run_simulation(seed, main)
    return made[0]


def test_a_client_outlives_the_replacement_of_every_member_it_knew() -> None:
    async def scenario(store: ChangingStore, client: StoreClient) -> None:
        async with store.client("reader") as reader:  # nobody tells it where the leader is
            await replace_all(store, client, reader)

    async def replace_all(store: ChangingStore, client: StoreClient, reader: StoreClient) -> None:
        for number in range(20):
            await client.put(b"k%d" % number, b"v")
        for old in NAMES:
            await reader.get(b"k0")
            new = f"{old}-new"
            store.add_machine(new)
            id_ = await client.member_add(new, f"{new}:2380", f"{new}:2379")
            await store.start(new)
            await store.wait_voter(client, id_)
            await trio.sleep(11)  # longer than a client takes to look who is there
            await client.member_remove(old)
            await client.put(b"after", old.encode())
            while old in store.running:
                await trio.sleep(0.1)
            assert any(old in failure and "was removed" in failure for failure in store.failures)
            store.network.crash(old)
        assert sorted(each["name"] for each in await client.member_list()) == [f"{n}-new" for n in NAMES]
        for number in range(20):
            assert await reader.get(b"k%d" % number) is not None
        found = await client.get(b"after")
        assert found is not None
        assert found.value == b"store-3"

    simulate(scenario)


def test_a_wiped_member_waits_for_its_replacement_and_joins_as_a_learner() -> None:
    async def scenario(store: ChangingStore, client: StoreClient) -> None:
        await client.put(b"k", b"v")
        await store.crash("store-2")
        store.add_machine("store-2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.start, "store-2")
            await trio.sleep(20)
            assert store.failures == []
            assert (await ids(client))["store-2"] == "store-2"  # the old one; nothing joined by itself
            await client.member_remove("store-2")
            id_ = await client.member_add("store-2", "store-2:2380", "store-2:2379")
            await store.wait_voter(client, id_)
        status = await client.status(member="store-2")
        assert (status["id"], status["name"], status["is_learner"]) == (id_, "store-2", False)
        assert sorted(status["members"]["voters"]) == sorted(["store-1", id_, "store-3"])
        await store.crash("store-1")
        await client.put(b"k", b"with the new one")

    simulate(scenario)


def test_a_wiped_member_that_claims_to_be_new_stops_with_what_is_to_be_done() -> None:
    async def scenario(store: ChangingStore, client: StoreClient) -> None:
        await client.put(b"k", b"v")
        await store.crash("store-2")
        store.add_machine("store-2")
        store.states["store-2"] = "new"
        await store.start("store-2")
        while "store-2" in store.running:
            await trio.sleep(0.1)
        (failure,) = store.failures
        assert "store-2 came back with an empty disk" in failure
        assert "raftkube kv member replace store-2" in failure

    simulate(scenario)


async def ids(client: StoreClient) -> dict[str, str]:
    return {each["name"]: each["id"] for each in await client.member_list()}


def test_the_leader_is_removed_by_one_request() -> None:
    async def scenario(store: ChangingStore, client: StoreClient) -> None:
        await client.put(b"k", b"v")
        (leader,) = [each["name"] for each in await client.member_list() if each["leader"]]
        await client.member_remove(leader)
        assert leader not in await ids(client)
        await client.put(b"k", b"w")

    for seed in range(3):
        simulate(scenario, seed=seed)


def test_learners_serve_reads_and_say_what_they_are() -> None:
    async def scenario(store: ChangingStore, client: StoreClient) -> None:
        store.add_machine("store-4")
        id_ = await client.member_add("store-4", "store-4:2380", "store-4:2379", learner=True)
        assert not {e["id"]: e for e in await client.member_list()}[id_]["started"]
        await store.start("store-4")
        await client.put(b"k", b"v")
        async with StoreClient.open(
            store.network.host("other"), [store.clients["store-4"]], pinned=True, rng=seeded_rng(1)
        ) as learner:
            found = await learner.get(b"k")
            assert found is not None
            status = await learner.status()
            assert (status["is_learner"], status["role"]) == (True, "follower")
            assert status["members"]["learners"] == [id_]
            with pytest.raises(StoreError):
                await learner.put(b"k", b"w")
        listed = {e["id"]: e for e in await client.member_list()}[id_]
        assert (listed["learner"], listed["voter"], listed["started"]) == (True, False, True)
        await client.member_promote("store-4")
        await client.member_update("store-4", client_address="elsewhere:1")
        assert {e["id"]: e for e in await client.member_list()}[id_]["client_address"] == "elsewhere:1"

    simulate(scenario)


def test_what_is_wrong_with_a_request_is_said() -> None:
    async def scenario(store: ChangingStore, client: StoreClient) -> None:
        await client.put(b"k", b"v")
        with pytest.raises(MembershipRefused, match="a member called 'store-2' is there already"):
            await client.member_add("store-2", "x:1")
        with pytest.raises(MembershipRefused, match="no member 'nobody'"):
            await client.member_remove("nobody")
        with pytest.raises(MembershipRefused, match="voter already"):
            await client.member_promote("store-2")
        with pytest.raises(InvalidRequest, match="peer_address: 'x' is not an address"):
            await client.member_add("new", "x")
        with pytest.raises(InvalidRequest, match="not a member's name"):
            await client.member_add("new#1", "x:1")
        for arguments in ([], [1, "x:1", "", False], ["a", "x:1", "", 0], ["a", "x:1", ""]):
            with pytest.raises(InvalidRequest):
                await client._call(rpc.MEMBER_ADD, arguments, write=True)
        with pytest.raises(InvalidRequest, match="client_address"):
            await client.member_update("store-2", client_address="nowhere")

    simulate(scenario)


def test_only_operators_and_members_change_members() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            store = ChangingStore(1, nursery, tls=True)
            await store.start_all()
            for organization, may in (
                ("raftkube:store-client", False),
                ("raftkube:store-admin", True),
                ("raftkube:store-peer", True),
            ):
                host = store.network.host("client", PeerIdentity("someone", (organization,)))
                with trio.fail_after(60):
                    async with StoreClient.open(host, list(store.clients.values()), TlsFiles()) as client:
                        await client.put(b"k", b"v")
                        assert len(await client.member_list()) == 3
                        attempts: list[Callable[[], Awaitable[str]]] = [
                            partial(client.member_add, "x", "x"),
                            partial(client.member_remove, "nobody"),
                            partial(client.member_promote, "nobody"),
                            partial(client.member_update, "nobody", "x:1"),
                        ]
                        for attempt in attempts:
                            with pytest.raises(RaftkubeError) as caught:
                                await attempt()
                            assert isinstance(caught.value, PermissionDenied) is not may
                            if not may:
                                assert "O=raftkube:store-admin" in str(caught.value)
                        with nullcontext() if may else pytest.raises(PermissionDenied):
                            await client.alarm_disarm()
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


@pytest.mark.parametrize(
    ("mine", "why"),
    [
        (None, "there is no member 'store-2'; add it: raftkube kv member add store-2"),
        ({"learner": False, "started": False}, "kv member replace store-2"),
        ({"learner": True, "started": True}, "kv member replace store-2"),
        ({"learner": False, "started": True}, "kv member replace store-2"),
        ({"learner": True, "started": False}, None),
    ],
)
def test_an_empty_disk_takes_the_place_of_a_learner_that_never_started_alone(
    mine: dict[str, bool] | None, why: str | None
) -> None:
    members: list[dict[str, object]] = [
        {"name": "store-1", "id": "store-1", "learner": False, "started": True}
    ]
    if mine is not None:
        members.append({"name": "store-2", "id": "store-2#00000001", "committed": True, **mine})
    refusal = unfit("store-2", members)
    assert refusal is None if why is None else why in str(refusal)


def test_a_joiner_that_nobody_answers_says_why_it_gives_up() -> None:
    async def main() -> None:
        network = SimNetwork(seeded_rng(1)).host("store-4")
        others = {"store-1": Address("store-1", 2379)}
        with pytest.raises(ConfigError, match=r"found no place.*store-1:2379 refused"):
            await find_place("store-4", "t", others, network=network, tls=None, rng=seeded_rng(1))
        with pytest.raises(ConfigError, match="--initial-client-urls"):
            await find_place("store-4", "t", {}, network=network, tls=None, rng=seeded_rng(1))

    run_simulation(1, main)


def test_the_list_of_members_is_linearizable_unless_asked_otherwise() -> None:
    async def scenario(store: ChangingStore, client: StoreClient) -> None:
        await client.move_leader("store-1")
        await client.put(b"k", b"to the leader")
        store.network.partition({"store-3", "old"}, {"store-1", "store-2", "client"})
        store.add_machine("store-4")
        id_ = await client.member_add("store-4", "store-4:2380", "store-4:2379", learner=True)
        async with store.client("old") as old:
            stale = await old.member_list("store-3", serializable=True)
            assert id_ not in [each["id"] for each in stale]
            with pytest.raises(NoLeader):
                await old.member_list("store-3")
        store.network.heal()
        assert id_ in [each["id"] for each in await client.member_list("store-3")]

    simulate(scenario)
