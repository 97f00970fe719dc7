"""Leases with a store lease, and what a leader that was deposed can no longer do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from api_world import Client, Json, World, config_map, pod, world

from raftkube.wire.store import Range

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
PODS = "/api/v1/namespaces/default/pods"
CM = "/api/v1/namespaces/default/configmaps"
EVENTS = "/api/v1/namespaces/default/events"
TOKEN = "raftkube.dev/fencing-token"
SCHEDULER = "system:kube-scheduler"
MANAGER = "system:kube-controller-manager"


def lease(name: str, holder: str = "one", seconds: int = 60, **annotations: str) -> Json:
    return {
        "metadata": {"name": name, "annotations": {"raftkube.dev/store-lease": "true", **annotations}},
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": seconds,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    }  # fmt: skip


def token_of(obj: Json) -> int:
    return int(obj["metadata"]["annotations"][TOKEN])


async def elect(w: World, user: str, holder: str) -> tuple[Client, Json]:
    """The client of a leader, with its token, and its Lease."""
    name = user.removeprefix("system:")
    created = await w.client(user).post(LEASES, lease(name, holder))
    assert created.code == 201, created.raw
    return w.client(user, token=token_of(created.body)), created.body


def fenced(answer: Any) -> bool:
    """Whether it was refused for its token."""
    causes = (answer.body or {}).get("details", {}).get("causes", [{}])
    return answer.code == 409 and causes[0].get("reason") == "FencingTokenStale"


async def test_the_token_is_the_create_revision_and_never_stored(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _, created = await elect(w, SCHEDULER, "one")
        assert created["metadata"]["resourceVersion"] == created["metadata"]["annotations"][TOKEN]
        client = w.client(SCHEDULER)
        created["spec"]["renewTime"] = "2026-01-01T00:00:05.000000Z"
        renewed = await client.put(f"{LEASES}/kube-scheduler", created)
        assert renewed.code == 200
        assert token_of(renewed.body) == token_of(created)
        assert renewed.body["metadata"]["resourceVersion"] != created["metadata"]["resourceVersion"]
        for read in (await client.get(f"{LEASES}/kube-scheduler"), await client.get(LEASES)):
            found = read.body["items"][0] if "items" in read.body else read.body
            assert token_of(found) == token_of(created)
        key = b"/registry/coordination.k8s.io/leases/kube-system/kube-scheduler"
        raw = await w.storage.range(Range(key))
        assert TOKEN.encode() not in raw.kvs[0].value
        assert raw.kvs[0].lease != 0


async def test_the_store_expires_it_and_renewal_keeps_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        created = (await w.client(SCHEDULER).post(LEASES, lease("kube-scheduler", seconds=1))).body
        kept = (await w.client(MANAGER).post(LEASES, lease("kube-controller-manager", seconds=2))).body
        manager = w.client(MANAGER)
        start = created["metadata"]["resourceVersion"]
        async with manager.watch(f"{LEASES}?resourceVersion={start}") as watch:
            await watch.names(1)
            number, event = 0, {"type": ""}
            with trio.fail_after(20):
                while event["type"] != "DELETED":
                    number += 1
                    kept["spec"]["renewTime"] = f"2026-01-01T00:00:00.{number:06d}Z"
                    kept = (await manager.put(f"{LEASES}/kube-controller-manager", kept)).body
                    event = await watch.next()
            assert event["object"]["metadata"]["name"] == "kube-scheduler"
        assert (await manager.get(f"{LEASES}/kube-controller-manager")).code == 200
        again = await w.client(SCHEDULER).post(LEASES, lease("kube-scheduler", "two"))
        assert token_of(again.body) > token_of(created)
        # The former holder's renewal names the object that has gone: it is not made anew.
        assert (await w.client(SCHEDULER).put(f"{LEASES}/kube-scheduler", created)).code == 409


async def test_a_renewal_does_not_bring_an_expired_lease_back(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _, held = await elect(w, SCHEDULER, "one")
        assert (await w.client(SCHEDULER).delete(f"{LEASES}/kube-scheduler")).code == 200
        assert (await w.client(SCHEDULER).put(f"{LEASES}/kube-scheduler", held)).code == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"spec": {"holderIdentity": "two"}}, "spec.holderIdentity"),
        ({"spec": {"leaseDurationSeconds": 5}}, "spec.leaseDurationSeconds"),
        ({"metadata": {"annotations": {"raftkube.dev/store-lease": None}}}, "metadata.annotations"),
    ],
    ids=["holder", "duration", "annotation"],
)
async def test_what_makes_a_holder_cannot_change(tmp_path: Path, change: Json, field: str) -> None:
    async with world(tmp_path) as w:
        await elect(w, SCHEDULER, "one")
        answer = await w.client(SCHEDULER).patch(f"{LEASES}/kube-scheduler", change)
        assert answer.code == 422
        assert answer.body["details"]["causes"][0]["field"].startswith(field)


async def test_a_store_lease_needs_holder_and_duration_and_comes_at_creation(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        admin = w.client()
        for missing in ("holderIdentity", "leaseDurationSeconds"):
            body = lease("x")
            del body["spec"][missing]
            answer = await admin.post(LEASES, body)
            assert answer.code == 422
            assert answer.body["details"]["causes"][0]["field"] == f"spec.{missing}"
        plain = {"metadata": {"name": "plain"}, "spec": {"holderIdentity": "a"}}
        assert (await admin.post(LEASES, plain)).code == 201
        later = {"metadata": {"annotations": {"raftkube.dev/store-lease": "true"}}}
        assert (await admin.patch(f"{LEASES}/plain", later)).code == 422
        moved = await admin.patch(f"{LEASES}/plain", {"spec": {"holderIdentity": "b"}})
        assert moved.body["spec"]["holderIdentity"] == "b"


async def _mutations(w: World, client: Client, number: int) -> dict[str, Any]:
    """One of each kind of write by the controller manager; prepared by the administrator."""
    admin = w.client()
    await admin.post(CM, config_map(f"cm{number}", labels={"n": str(number)}))
    await admin.post(PODS, pod(f"p{number}"))
    status = {"status": {"phase": "Running"}}
    return {
        "create": await client.post(PODS, pod(f"new{number}")),
        "update": await client.put(f"{CM}/cm{number}", config_map(f"cm{number}", {"a": "b"})),
        "patch": await client.patch(f"{CM}/cm{number}", {"data": {"c": "d"}}),
        "no change": await client.patch(f"{CM}/cm{number}", {}),
        "status": await client.patch(f"{PODS}/p{number}/status", status),
        "eviction": await client.post(f"{PODS}/p{number}/eviction", {"metadata": {"name": f"p{number}"}}),
        "collection": await client.delete(f"{CM}?labelSelector=n%3D{number}"),
        "event": await client.post(EVENTS, _event(number)),
    }


def _event(number: int) -> Json:
    return {
        "metadata": {"name": f"e{number}"}, "reason": "Test", "message": "x", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
    }  # fmt: skip


async def test_a_deposed_leader_cannot_write_anything(tmp_path: Path) -> None:
    async with world(tmp_path, servers=2) as w:
        leader, _ = await elect(w, MANAGER, "one")
        done = await _mutations(w, leader, 1)
        assert {name: answer.code for name, answer in done.items() if answer.code > 201} == {}
        assert (await w.client(MANAGER).delete(f"{LEASES}/kube-controller-manager")).code == 200
        _, successor = await elect(w, MANAGER, "two")
        refused = await _mutations(w, leader, 2)
        assert {name: answer.raw for name, answer in refused.items() if not fenced(answer)} == {}
        other = w.client(MANAGER, server=1, token=int(leader.headers["Raftkube-Fencing-Token"]))
        assert fenced(await other.post(PODS, pod("elsewhere")))
        assert "kube-system/kube-controller-manager" in refused["create"].body["message"]
        assert (await w.client().get(f"{CM}/cm2")).code == 200
        assert (await w.client().get(f"{PODS}/new2")).code == 404
        now = w.client(MANAGER, token=token_of(successor))
        assert (await now.post(PODS, pod("by-the-successor"))).code == 201


async def test_no_leader_at_all_means_no_writes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        leader, _ = await elect(w, MANAGER, "one")
        await w.client(MANAGER).delete(f"{LEASES}/kube-controller-manager")
        assert fenced(await leader.post(PODS, pod("a")))


async def test_a_control_identity_without_token_only_elects(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        without = w.client(MANAGER)
        assert fenced(await without.post(PODS, pod("a")))
        assert fenced(await without.post(EVENTS, _event(1)))
        assert fenced(await without.post(LEASES, lease("another")))
        assert (await without.get(PODS)).code == 200
        assert (await without.post(LEASES, lease("kube-controller-manager"))).code == 201
        assert (await without.delete(f"{LEASES}/kube-controller-manager")).code == 200
        bad = await w.client(MANAGER, token=-5).post(PODS, pod("a"))
        assert (bad.code, bad.reason) == (400, "BadRequest")
        assert (await w.client().get(f"{PODS}/a")).code == 404


async def test_binding_is_fenced_and_happens_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        leader, _ = await elect(w, SCHEDULER, "one")
        created = (await w.client().post(PODS, pod("p"))).body
        binding = {"metadata": {"name": "p", "uid": created["metadata"]["uid"]}, "target": {"name": "node-1"}}
        assert fenced(await w.client(SCHEDULER, token=1).post(f"{PODS}/p/binding", binding))
        stranger = {"metadata": {"name": "p", "uid": "another"}, "target": {"name": "node-1"}}
        assert (await leader.post(f"{PODS}/p/binding", stranger)).code == 409
        bound = await leader.post(f"{PODS}/p/binding", binding)
        assert (bound.code, bound.body["status"]) == (201, "Success")
        again = await leader.post(f"{PODS}/p/binding", binding)
        assert (again.code, again.reason) == (409, "Conflict")
        assert 'already assigned to node "node-1"' in again.body["message"]
        assert not fenced(again)
        # A deposed leader hears that first, whatever else is wrong with its request.
        assert fenced(await w.client(SCHEDULER, token=1).post(f"{PODS}/p/binding", binding))
        nobody = binding | {"metadata": {"name": "none"}}
        assert fenced(await w.client(SCHEDULER, token=1).post(f"{PODS}/none/binding", nobody))
        found = (await w.client().get(f"{PODS}/p")).body
        assert found["spec"]["nodeName"] == "node-1"
        conditions = {item["type"]: item["status"] for item in found["status"]["conditions"]}
        assert conditions["PodScheduled"] == "True"


async def test_a_lease_can_fence_any_identity(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        operator = w.client("operator", "system:masters")
        assert (await operator.post(CM, config_map("before"))).code == 201
        held = await w.client().post(LEASES, lease("op", **{"raftkube.dev/fences": "operator"}))
        with trio.fail_after(20):
            while (refused := await operator.patch(f"{CM}/before", {"data": {"a": "b"}})).code != 409:
                pass
        assert fenced(refused)
        leading = w.client("operator", "system:masters", token=token_of(held.body))
        assert (await leading.post(CM, config_map("after"))).code == 201
        assert (await operator.delete(f"{LEASES}/op")).code == 200
