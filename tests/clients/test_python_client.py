"""The PyPI client `kubernetes`, which validates what it is sent: every kind through its typed classes."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from api_world import pod, world
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException

META = client.V1ObjectMeta
MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: from-yaml}
data: {a: b}
"""


def container() -> client.V1Container:
    requests = {"cpu": "0.1", "memory": "1024Ki"}
    resources = client.V1ResourceRequirements(requests=requests)
    return client.V1Container(name="main", image="web", command=["sleep", "9"], resources=resources)


def template() -> client.V1PodTemplateSpec:
    spec = client.V1PodSpec(containers=[container()])
    return client.V1PodTemplateSpec(metadata=META(labels={"app": "web"}), spec=spec)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def samples(api: client.ApiClient) -> Iterator[tuple[Any, str, Any]]:
    """(typed API, the resource's name in its methods, an object) for each namespaced kind."""
    core, apps, leases = client.CoreV1Api(api), client.AppsV1Api(api), client.CoordinationV1Api(api)
    name, selector = META(name="one"), client.V1LabelSelector(match_labels={"app": "web"})
    yield core, "config_map", client.V1ConfigMap(metadata=name, data={"a": "b"}, binary_data={"c": "AA=="})
    yield core, "secret", client.V1Secret(metadata=name, string_data={"a": "b"})
    yield core, "service_account", client.V1ServiceAccount(metadata=name)
    ports = [client.V1ServicePort(name="http", port=80, target_port="http")]
    yield (
        core,
        "service",
        client.V1Service(
            metadata=name, spec=client.V1ServiceSpec(type="NodePort", ports=ports, selector={"app": "web"})
        ),
    )
    yield core, "pod", client.V1Pod(metadata=name, spec=client.V1PodSpec(containers=[container()]))
    about = client.V1ObjectReference(kind="Pod", name="one", namespace="default")
    yield core, "event", client.CoreV1Event(
        metadata=name, involved_object=about, reason="Tried", message="it was", type="Normal", count=1,
        first_timestamp=now(), event_time=now(), action="Try", reporting_component="tests",
        reporting_instance="one",
    )  # fmt: skip
    spec = client.V1DeploymentSpec(replicas=1, selector=selector, template=template())
    yield apps, "deployment", client.V1Deployment(metadata=name, spec=spec)
    replicas = client.V1ReplicaSetSpec(replicas=1, selector=selector, template=template())
    yield apps, "replica_set", client.V1ReplicaSet(metadata=name, spec=replicas)
    held = client.V1LeaseSpec(holder_identity="me", lease_duration_seconds=15, renew_time=now())
    yield leases, "lease", client.V1Lease(metadata=name, spec=held)


async def with_client(path: Path, work: Callable[[client.ApiClient], None]) -> None:
    """`work` in a thread, with a client of an API server over memory storage."""
    async with world(path) as w:
        kubeconfig = str(w.kubeconfig())

        def run() -> None:
            with config.new_client_from_config(kubeconfig) as api:
                work(api)

        with trio.fail_after(120):
            await trio.to_thread.run_sync(run)


async def test_every_kind_through_its_typed_methods(tmp_path: Path) -> None:
    def work(api: client.ApiClient) -> None:
        for typed, kind, obj in samples(api):
            made = getattr(typed, f"create_namespaced_{kind}")("default", obj)
            assert made.metadata.uid, kind
            read = getattr(typed, f"read_namespaced_{kind}")("one", "default")
            assert read.to_dict() == made.to_dict(), kind
            labels = {"metadata": {"labels": {"x": "y"}}}
            patched = getattr(typed, f"patch_namespaced_{kind}")("one", "default", labels)
            assert patched.metadata.labels["x"] == "y", kind
            again = getattr(typed, f"replace_namespaced_{kind}")("one", "default", patched)
            assert again.metadata.resource_version == patched.metadata.resource_version, kind
            with pytest.raises(ApiException) as stale:
                getattr(typed, f"replace_namespaced_{kind}")("one", "default", made)
            assert stale.value.status == 409, kind
            with pytest.raises(ApiException) as exists:
                getattr(typed, f"create_namespaced_{kind}")("default", obj)
            assert exists.value.status == 409, kind
            listed = getattr(typed, f"list_namespaced_{kind}")("default", label_selector="x=y")
            assert [item.metadata.name for item in listed.items] == ["one"], kind
            everywhere = getattr(typed, f"list_{kind}_for_all_namespaces")()
            assert "one" in [item.metadata.name for item in everywhere.items], kind
            getattr(typed, f"delete_namespaced_{kind}")("one", "default")
            with pytest.raises(ApiException) as gone:
                getattr(typed, f"read_namespaced_{kind}")("one", "default")
            assert gone.value.status == 404, kind
            getattr(typed, f"delete_collection_namespaced_{kind}")("default", label_selector="x=y")

    await with_client(tmp_path, work)


async def test_cluster_scoped_kinds_and_subresources(tmp_path: Path) -> None:
    def work(api: client.ApiClient) -> None:
        core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
        assert core.create_namespace(client.V1Namespace(metadata=META(name="shop"))).status.phase == "Active"
        assert "shop" in [item.metadata.name for item in core.list_namespace().items]
        assert core.delete_namespace("shop") is not None
        assert core.read_namespace_status("shop").status.phase == "Terminating"
        node = client.V1Node(metadata=META(name="n"), spec=client.V1NodeSpec(unschedulable=True))
        assert core.create_node(node).spec.unschedulable is True
        capacity = {"status": {"capacity": {"cpu": "2", "memory": "1Gi"}}}
        assert core.patch_node_status("n", capacity).status.capacity == {"cpu": "2", "memory": "1Gi"}
        assert [item.metadata.name for item in core.list_node().items] == ["n"]

        selector = client.V1LabelSelector(match_labels={"app": "web"})
        spec = client.V1DeploymentSpec(replicas=1, selector=selector, template=template())
        web = client.V1Deployment(metadata=META(name="web"), spec=spec)
        apps.create_namespaced_deployment("default", web)
        scale = apps.read_namespaced_deployment_scale("web", "default")
        scale.spec.replicas = 4
        assert apps.replace_namespaced_deployment_scale("web", "default", scale).spec.replicas == 4
        patched = apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 2}})
        assert patched.spec.replicas == 2
        deployment = apps.read_namespaced_deployment_status("web", "default")
        deployment.status.replicas = 2
        assert apps.replace_namespaced_deployment_status("web", "default", deployment).status.replicas == 2

        core.create_namespaced_pod("default", pod("one"))
        target = client.V1ObjectReference(kind="Node", name="n")
        binding = client.V1Binding(metadata=META(name="one"), target=target)
        core.create_namespaced_pod_binding("one", "default", binding, _preload_content=False)
        assert core.read_namespaced_pod_status("one", "default").spec.node_name == "n"
        eviction = client.V1Eviction(metadata=META(name="one"))
        core.create_namespaced_pod_eviction("one", "default", eviction)
        assert core.read_namespaced_pod("one", "default").metadata.deletion_timestamp is not None
        core.delete_namespaced_pod("one", "default", grace_period_seconds=0)

    await with_client(tmp_path, work)


async def test_list_then_watch_misses_nothing_and_resumes(tmp_path: Path) -> None:
    def work(api: client.ApiClient) -> None:
        core = client.CoreV1Api(api)

        def put(name: str) -> None:
            core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=META(name=name)))

        for number in range(7):
            put(f"c{number}")
        names, more = [], None
        while more != "":
            page = core.list_namespaced_config_map("default", limit=3, _continue=more)
            names += [item.metadata.name for item in page.items]
            more = page.metadata._continue or ""
        assert names == [f"c{number}" for number in range(7)]

        version = core.list_namespaced_config_map("default").metadata.resource_version
        seen: list[tuple[str, str]] = []

        def follow(count: int) -> None:
            nonlocal version
            stream = watch.Watch()
            for event in stream.stream(
                core.list_namespaced_config_map, "default", resource_version=version,
                timeout_seconds=20, allow_watch_bookmarks=True,
            ):  # fmt: skip
                seen.append((event["type"], event["object"].metadata.name))
                version = event["object"].metadata.resource_version
                count -= 1
                if count == 0:
                    stream.stop()

        core.patch_namespaced_config_map("c1", "default", {"data": {"a": "b"}})
        core.delete_namespaced_config_map("c2", "default")
        follow(1)
        put("c8")  # while nobody watches
        core.delete_namespaced_config_map("c3", "default")
        follow(3)
        assert seen == [("MODIFIED", "c1"), ("DELETED", "c2"), ("ADDED", "c8"), ("DELETED", "c3")]

        ended = watch.Watch().stream(core.list_namespaced_config_map, "default", timeout_seconds=1)
        assert {event["type"] for event in ended} == {"ADDED"}

    await with_client(tmp_path, work)


async def test_a_lease_is_lost_to_whoever_wrote_last(tmp_path: Path) -> None:
    """Two candidates as in the client's leader election: read, decide, replace with the version read."""

    def work(api: client.ApiClient) -> None:
        leases = client.CoordinationV1Api(api)
        spec = client.V1LeaseSpec(holder_identity="a", lease_duration_seconds=15, acquire_time=now(),
                                  renew_time=now(), lease_transitions=0)  # fmt: skip
        mine = leases.create_namespaced_lease("default", client.V1Lease(metadata=META(name="l"), spec=spec))
        for _ in range(10):
            mine.spec.renew_time = now()
            renewed = leases.replace_namespaced_lease("l", "default", mine)
            assert renewed.spec.renew_time == mine.spec.renew_time, "microseconds are kept"
            mine = renewed
        theirs = leases.read_namespaced_lease("l", "default")
        theirs.spec.holder_identity, theirs.spec.lease_transitions = "b", 1
        leases.replace_namespaced_lease("l", "default", theirs)
        with pytest.raises(ApiException) as lost:
            leases.replace_namespaced_lease("l", "default", mine)
        assert lost.value.status == 409
        assert leases.read_namespaced_lease("l", "default").spec.holder_identity == "b"

    await with_client(tmp_path, work)


async def test_discovery_the_dynamic_client_and_yaml(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(MANIFEST)

    def work(api: client.ApiClient) -> None:
        groups = client.ApisApi(api).get_api_versions().groups
        assert {group.name for group in groups} >= {"apps", "coordination.k8s.io"}
        assert client.CoreApi(api).get_api_versions().versions == ["v1"]
        assert client.VersionApi(api).get_code().major == "1"
        assert "pods/log" in [item.name for item in client.CoreV1Api(api).get_api_resources().resources]
        assert client.AppsApi(api).get_api_group().preferred_version.version == "v1"
        utils.create_from_yaml(api, str(path))

        maps = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
        assert maps.get(name="from-yaml", namespace="default").data.a == "b"
        patched = maps.patch(
            name="from-yaml", namespace="default", body={"data": {"a": "c"}},
            content_type="application/merge-patch+json",
        )  # fmt: skip
        assert patched.data.a == "c"
        events = list(maps.watch(namespace="default", timeout=1))
        assert [event["object"].metadata.name for event in events] == ["from-yaml"]
        maps.delete(name="from-yaml", namespace="default")

    await with_client(tmp_path, work)


async def test_refusals_are_exceptions_with_a_status(tmp_path: Path) -> None:
    def work(api: client.ApiClient) -> None:
        core = client.CoreV1Api(api)
        spec = client.V1PodSpec(containers=[client.V1Container(name="Bad_Name", image="web")])
        with pytest.raises(ApiException) as invalid:
            core.create_namespaced_pod("default", client.V1Pod(metadata=META(name="p"), spec=spec))
        assert invalid.value.status == 422
        assert "spec.containers[0].name" in invalid.value.body
        with pytest.raises(ApiException) as unserved:
            client.BatchV1Api(api).list_namespaced_job("default")
        assert unserved.value.status == 404
        assert "not served here: jobs in batch/v1" in unserved.value.body

    await with_client(tmp_path, work)
