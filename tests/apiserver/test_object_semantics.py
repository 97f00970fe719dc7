"""What happens to objects: versions, no-ops, finalizers, grace, namespaces, subresources, dry runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from api_world import Client, Json, config_map, pod, world

NS = "/api/v1/namespaces"
CM = f"{NS}/default/configmaps"
PODS = f"{NS}/default/pods"
SERVICES = f"{NS}/default/services"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


def deployment(name: str, replicas: int = 1) -> Json:
    labels = {"app": name}
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod("x")["spec"]},
        },
    }  # fmt: skip


def service(name: str, **spec: Any) -> Json:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def version_of(obj: Json) -> str:
    return str(obj["metadata"]["resourceVersion"])


async def test_create_sets_what_servers_set(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sent = config_map("a", uid="mine", creationTimestamp="2000-01-01T00:00:00Z", generation=7)
        created = (await w.client().post(CM, sent)).body
        meta = created["metadata"]
        assert (created["kind"], created["apiVersion"]) == ("ConfigMap", "v1")
        assert len(meta["uid"]) == 36
        assert meta["creationTimestamp"] > "2026"
        assert meta["namespace"] == "default"
        assert meta["resourceVersion"].isdigit()
        again = await w.client().post(CM, sent)
        assert (again.code, again.reason) == (409, "AlreadyExists")
        assert again.body["details"] == {"name": "a", "kind": "configmaps"}


async def test_generate_name_finds_free_names(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        body = {"metadata": {"generateName": "job-"}}
        names = [(await w.client().post(CM, body)).body["metadata"]["name"] for _ in range(5)]
        assert len(set(names)) == 5
        assert all(name.startswith("job-") and len(name) == 9 for name in names)


async def test_a_write_that_changes_nothing_keeps_the_version(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        created = (await client.post(CM, config_map("a", {"k": "v"}))).body
        tested = [{"op": "test", "path": "/data/k", "value": "v"}]
        same = [
            await client.put(f"{CM}/a", config_map("a", {"k": "v"})),
            await client.patch(f"{CM}/a", {"data": {"k": "v"}}),
            await client.patch(f"{CM}/a", {"data": {"k": "v"}}, "strategic-merge-patch+json"),
            await client.patch(f"{CM}/a", tested, "json-patch+json"),
        ]
        assert {version_of(answer.body) for answer in same} == {version_of(created)}
        changed = (await client.put(f"{CM}/a", config_map("a", {"k": "w"}))).body
        assert int(version_of(changed)) > int(version_of(created))
        assert changed["metadata"]["uid"] == created["metadata"]["uid"]


async def test_generation_follows_the_spec_and_status_is_kept_apart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        created = (await client.post(DEPLOYMENTS, deployment("d"))).body
        assert created["metadata"]["generation"] == 1
        body = deployment("d", 3) | {"status": {"replicas": 99}}
        updated = (await client.put(f"{DEPLOYMENTS}/d", body)).body
        assert updated["metadata"]["generation"] == 2
        assert updated["status"].get("replicas") is None
        status = {"spec": {"replicas": 50}, "status": {"observedGeneration": 2, "replicas": 3}}
        reported = (await client.patch(f"{DEPLOYMENTS}/d/status", status)).body
        assert reported["spec"]["replicas"] == 3
        assert reported["status"]["replicas"] == 3
        assert reported["metadata"]["generation"] == 2
        labelled = (await client.patch(f"{DEPLOYMENTS}/d", {"metadata": {"labels": {"a": "b"}}})).body
        assert labelled["metadata"]["generation"] == 2
        assert labelled["status"]["replicas"] == 3


async def test_scale(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(DEPLOYMENTS, deployment("d", 2))
        scale = (await client.get(f"{DEPLOYMENTS}/d/scale")).body
        assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == (
            "Scale",
            {"replicas": 2},
            "app=d",
        )
        scale["spec"]["replicas"] = 4
        assert (await client.put(f"{DEPLOYMENTS}/d/scale", scale)).body["spec"]["replicas"] == 4
        stale = await client.put(f"{DEPLOYMENTS}/d/scale", scale)
        assert (stale.code, stale.reason) == (409, "Conflict")
        patched = await client.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 6}})
        assert patched.body["spec"]["replicas"] == 6
        refused = await client.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": -1}})
        assert refused.code == 422
        assert (await client.get(f"{DEPLOYMENTS}/d")).body["spec"]["replicas"] == 6


async def test_finalizers_hold_a_deletion(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(CM, config_map("a", finalizers=["example.com/hold"]))
        held = await client.delete(f"{CM}/a")
        assert held.code == 200
        assert held.body["metadata"]["deletionTimestamp"]
        again = await client.delete(f"{CM}/a")
        assert version_of(again.body) == version_of(held.body)
        more = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
        assert (await client.patch(f"{CM}/a", more)).code == 422
        assert (await client.get(f"{CM}/a")).code == 200
        released = await client.patch(f"{CM}/a", {"metadata": {"finalizers": None}})
        assert released.code == 200
        assert (await client.get(f"{CM}/a")).code == 404


@pytest.mark.parametrize(
    ("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")]
)
async def test_propagation_becomes_a_finalizer(tmp_path: Path, policy: str, finalizer: str) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(DEPLOYMENTS, deployment("d"))
        held = await client.delete(f"{DEPLOYMENTS}/d", {"propagationPolicy": policy})
        assert held.body["metadata"]["finalizers"] == [finalizer]
        await client.post(DEPLOYMENTS, deployment("e"))
        assert (await client.delete(f"{DEPLOYMENTS}/e?propagationPolicy={policy}")).body["metadata"][
            "finalizers"
        ] == [finalizer]
        await client.post(DEPLOYMENTS, deployment("f"))
        gone = await client.delete(f"{DEPLOYMENTS}/f", {})
        assert gone.body["details"]["group"] == "apps"


async def test_pods_are_given_their_grace(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(PODS, pod("waiting"))
        gone = await client.delete(f"{PODS}/waiting")
        assert gone.body["kind"] == "Pod"
        assert (await client.get(f"{PODS}/waiting")).code == 404

        await client.post(PODS, pod("running"))
        await client.post(f"{PODS}/running/binding", {"target": {"name": "node-1"}})
        marked = await client.delete(f"{PODS}/running")
        assert marked.body["metadata"]["deletionGracePeriodSeconds"] == 30
        shorter = await client.delete(f"{PODS}/running", {"gracePeriodSeconds": 5})
        assert shorter.body["metadata"]["deletionGracePeriodSeconds"] == 5
        assert (await client.delete(f"{PODS}/running?gracePeriodSeconds=0")).code == 200
        assert (await client.get(f"{PODS}/running")).code == 404


async def test_delete_options_in_every_form(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        for number, (body, kind) in enumerate([
            (b"", ""), (b"{}", "application/json"), (b"gracePeriodSeconds: 0", "application/yaml"),
            (b'{"kind":"DeleteOptions","apiVersion":"v1"}', "application/json"),
        ]):  # fmt: skip
            await client.post(CM, config_map(f"m{number}"))
            answer = await client.request("DELETE", f"{CM}/m{number}", body, content_type=kind)
            assert (answer.code, answer.body["details"]["name"]) == (200, f"m{number}")
        await client.post(CM, config_map("dry"))
        for target, options in ((f"{CM}/dry", {"dryRun": ["All"]}), (f"{CM}/dry?dryRun=All", None)):
            assert (await client.delete(target, options)).code == 200
        assert (await client.get(f"{CM}/dry")).code == 200


async def test_delete_collection_takes_what_is_selected(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        for number in range(6):
            await client.post(CM, config_map(f"m{number}", labels={"even": str(number % 2 == 0)}))
        answer = await client.delete(f"{CM}?labelSelector=even%3DTrue")
        assert [item["metadata"]["name"] for item in answer.body["items"]] == ["m0", "m2", "m4"]
        left = (await client.get(CM)).body["items"]
        assert [item["metadata"]["name"] for item in left] == ["m1", "m3", "m5"]


async def test_dry_runs_write_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        assert (await client.post(f"{CM}?dryRun=All", config_map("a"))).code == 201
        assert (await client.get(f"{CM}/a")).code == 404
        created = (await client.post(CM, config_map("a"))).body
        assert (await client.post(f"{CM}?dryRun=All", config_map("a"))).code == 409
        shown = await client.put(f"{CM}/a?dryRun=All", config_map("a", {"x": "y"}))
        assert shown.body["data"] == {"x": "y"}
        patched = await client.patch(f"{CM}/a?dryRun=All", {"data": {"z": "z"}})
        assert patched.body["data"] == {"z": "z"}
        assert version_of((await client.get(f"{CM}/a")).body) == version_of(created)


async def test_warnings_for_unknown_fields(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        body = config_map("a") | {"colour": "blue"}
        warned = await client.post(CM, body)
        assert warned.headers["warning"] == '299 - "unknown field \\"colour\\""'
        assert "colour" not in warned.body
        silent = await client.put(f"{CM}/a?fieldValidation=Ignore", body)
        assert "warning" not in silent.headers
        strict = await client.patch(f"{CM}/a?fieldValidation=Strict", {"colour": "red"})
        assert strict.code == 422


async def test_a_namespace_that_is_deleted_takes_nothing_new(tmp_path: Path) -> None:
    async with world(tmp_path, servers=2) as w:
        client, other = w.client(), w.client(server=1)
        assert (await client.post(NS, {"metadata": {"name": "shop"}})).code == 201
        assert (await other.post(f"{NS}/shop/configmaps", config_map("a"))).code == 201
        marked = await client.delete(f"{NS}/shop")
        assert marked.body["status"]["phase"] == "Terminating"
        refused = await other.post(f"{NS}/shop/configmaps", config_map("b"))
        assert (refused.code, refused.reason) == (403, "Forbidden")
        assert "because it is being terminated" in refused.body["message"]
        assert refused.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
        assert (await other.delete(f"{NS}/shop/configmaps/a")).code == 200
        finalized = marked.body | {"spec": {"finalizers": []}}
        assert (await client.put(f"{NS}/shop/finalize", finalized)).code == 200
        assert (await other.get(f"{NS}/shop")).code == 404


async def test_a_create_that_races_a_namespace_deletion_never_slips_in(tmp_path: Path) -> None:
    async with world(tmp_path, servers=2) as w:
        clients = [w.client(server=0), w.client(server=1)]
        for number in range(10):
            name = f"n{number}"
            await clients[0].post(NS, {"metadata": {"name": name}})
            revisions: dict[str, Json] = {}

            async def delete(name: str, found: dict[str, Json]) -> None:
                found["deleted"] = (await clients[0].delete(f"{NS}/{name}")).body

            async def create(name: str, found: dict[str, Json]) -> None:
                answer = await clients[1].post(f"{NS}/{name}/configmaps", config_map("a"))
                assert answer.code in (201, 403)
                if answer.code == 201:
                    found["created"] = answer.body

            async with trio.open_nursery() as nursery:
                nursery.start_soon(delete, name, revisions)
                nursery.start_soon(create, name, revisions)
            if "created" in revisions:
                assert int(version_of(revisions["created"])) < int(version_of(revisions["deleted"]))


async def test_service_addresses_are_unique_and_come_back(tmp_path: Path) -> None:
    async with world(tmp_path, servers=2) as w:
        clients = [w.client(server=0), w.client(server=1)]
        addresses: list[str] = []

        async def create(client: Client, name: str) -> None:
            answer = await client.post(SERVICES, service(name))
            assert answer.code == 201, answer.raw
            assert answer.body["spec"]["clusterIPs"] == [answer.body["spec"]["clusterIP"]]
            addresses.append(answer.body["spec"]["clusterIP"])

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(create, clients[number % 2], f"s{number}")
        assert len(set(addresses)) == 20
        assert all(address.startswith("10.96.") for address in addresses)
        fixed = service("fixed", clusterIP="10.96.7.7")
        assert (await clients[0].post(SERVICES, fixed)).code == 201
        again = service("again", clusterIP="10.96.7.7")
        assert (await clients[1].post(SERVICES, again)).code == 422
        assert (await clients[0].delete(f"{SERVICES}/fixed")).code == 200
        assert (await clients[1].post(SERVICES, again)).code == 201
        headless = await clients[0].post(SERVICES, service("headless", clusterIP="None"))
        assert headless.body["spec"]["clusterIP"] == "None"
        kept = await clients[0].put(f"{SERVICES}/again", service("again", sessionAffinity="ClientIP"))
        assert kept.body["spec"]["clusterIP"] == "10.96.7.7"


async def test_put_creates_only_where_upstream_does(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        assert (await client.put(f"{SERVICES}/new", service("new"))).code == 201
        assert (await client.put(f"{CM}/new", config_map("new"))).code == 404


async def test_lists_page_select_and_take_forms(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        for number in range(7):
            await client.post(CM, config_map(f"m{number}", labels={"odd": str(number % 2)}))
        names, token, pages = [], "", 0
        while True:
            page = (await client.get(f"{CM}?limit=2&labelSelector=odd%3D1" + token)).body
            names += [item["metadata"]["name"] for item in page["items"]]
            pages += 1
            if not page["metadata"].get("continue"):
                break
            token = "&continue=" + page["metadata"]["continue"]
        assert (names, pages) == (["m1", "m3", "m5"], 2)

        table = (await client.get(f"{CM}/m1", Accept=TABLE)).body
        assert (table["kind"], table["rows"][0]["cells"][:2]) == ("Table", ["m1", 0])
        partial = (await client.get(CM, Accept=METADATA)).body
        assert partial["kind"] == "PartialObjectMetadataList"
        assert set(partial["items"][0]) == {"kind", "apiVersion", "metadata"}
        refused = await client.get(CM, Accept="application/xml")
        assert (refused.code, refused.reason) == (406, "NotAcceptable")
        as_yaml = await client.get(f"{CM}/m1", Accept="application/yaml")
        assert b"kind: ConfigMap" in as_yaml.raw
        everywhere = (await client.get("/api/v1/configmaps")).body
        assert everywhere["kind"] == "ConfigMapList"
        assert len(everywhere["items"]) == 7


async def test_exact_versions_are_the_past(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        first = (await client.post(CM, config_map("a"))).body
        await client.delete(f"{CM}/a")
        query = f"resourceVersion={version_of(first)}&resourceVersionMatch=Exact"
        past = (await client.get(f"{CM}?{query}")).body
        assert [item["metadata"]["name"] for item in past["items"]] == ["a"]
        assert past["metadata"]["resourceVersion"] == version_of(first)
        assert (await client.get(CM)).body["items"] == []


async def test_json_patch_tests_and_strategic_lists(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(DEPLOYMENTS, deployment("d"))
        failed = [{"op": "test", "path": "/spec/replicas", "value": 9}]
        assert (await client.patch(f"{DEPLOYMENTS}/d", failed, "json-patch+json")).code == 422
        added = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s"}]}}}}
        merged = await client.patch(f"{DEPLOYMENTS}/d", added, "strategic-merge-patch+json")
        names = [item["name"] for item in merged.body["spec"]["template"]["spec"]["containers"]]
        assert sorted(names) == ["main", "side"]
        immutable = {"spec": {"selector": {"matchLabels": {"app": "other"}}}}
        assert (await client.patch(f"{DEPLOYMENTS}/d", immutable)).code == 422


async def test_eviction_deletes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(PODS, pod("p"))
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
        assert (await client.post(f"{PODS}/p/eviction", body)).code == 201
        assert (await client.get(f"{PODS}/p")).code == 404
