from __future__ import annotations

from typing import Any

import pytest
from api_samples import CREATED, T0, container, created_ok, deployment, pod, resource, service

from raftkube.api.resource import Object
from raftkube.api.status import ApiError
from raftkube.api.tables import (
    age,
    check_include_object,
    column_definitions,
    duration,
    partial_metadata_list,
    table,
)

NOW = T0 + 300


def _cells(plural: str, obj: Object, now: float = NOW) -> list[Any]:
    (row,) = table(resource(plural), [obj], now)["rows"]
    assert len(row["cells"]) == len(resource(plural).columns)
    return row["cells"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (1, "1s"), (119, "119s"), (120, "2m"), (185, "3m5s"),
        (599, "9m59s"), (600, "10m"), (10799, "179m"), (10800, "3h"), (10860, "3h1m"), (28799, "7h59m"),
        (28800, "8h"), (172799, "47h"), (172800, "2d"), (176400, "2d1h"), (691199, "7d23h"), (691200, "8d"),
        (63071999, "729d"), (63072000, "2y"), (63158400, "2y1d"), (4 * 31536000 + 12 * 86400, "4y12d"),
        (8 * 31536000, "8y"), (9 * 31536000 + 86400, "9y"),
    ],
)  # fmt: skip
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ages() -> None:
    assert age(CREATED, T0 + 61.9) == "61s"
    assert age("2026-01-01T00:00:00.500000Z", T0 + 2) == "1s"
    assert age(None, T0) == "<unknown>"
    assert age("yesterday", T0) == "<unknown>"


def _running(**status: Any) -> Object:
    stored = created_ok("pods", pod(nodeName="node-1"))
    stored["status"] = {
        "phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}],
        "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "app", "ready": True, "restartCount": 0,
                               "state": {"running": {"startedAt": CREATED}}}],
        **status,
    }  # fmt: skip
    return stored


def _state(restarts: int = 0, *, ready: bool = False, last: Any = None, **state: Any) -> Object:
    last_state = {"terminated": {"exitCode": 1, "finishedAt": last}} if last else {}
    return {"name": "app", "ready": ready, "restartCount": restarts, "state": state, "lastState": last_state}


def test_the_columns_of_pods() -> None:
    names = [(column["name"], column["priority"]) for column in column_definitions(resource("pods"))]
    assert names == [
        ("Name", 0), ("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0), ("IP", 1), ("Node", 1),
        ("Nominated Node", 1), ("Readiness Gates", 1),
    ]  # fmt: skip


def test_a_pending_and_a_running_pod() -> None:
    pending = created_ok("pods", pod())
    none = ["<none>"] * 4
    assert _cells("pods", pending) == ["web", "0/1", "Pending", "0", "5m", *none]
    assert _cells("pods", _running()) == [
        "web", "1/1", "Running", "0", "5m", "10.0.0.7", "node-1", "<none>", "<none>",
    ]  # fmt: skip


BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff"}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}
RUNS = {"running": {"startedAt": CREATED}}


@pytest.mark.parametrize(
    ("status", "ready", "word", "restarts"),
    [
        ({"containerStatuses": [_state(3, last="2026-01-01T00:00:00Z", **BACK_OFF)]},
         "0/1", "CrashLoopBackOff", "3 (5m ago)"),
        ({"containerStatuses": [_state(3, **BACK_OFF)]}, "0/1", "CrashLoopBackOff", "3"),
        ({"phase": "Succeeded", "containerStatuses": [_state(**DONE)]}, "0/1", "Completed", "0"),
        ({"containerStatuses": [_state(terminated={"exitCode": 2})]}, "0/1", "ExitCode:2", "0"),
        ({"containerStatuses": [_state(terminated={"exitCode": 0, "signal": 9})]}, "0/1", "Signal:9", "0"),
        ({"containerStatuses": [_state(waiting={"reason": "ContainerCreating"})]},
         "0/1", "ContainerCreating", "0"),
        ({"containerStatuses": [_state(**RUNS)]}, "0/1", "Running", "0"),
        ({"containerStatuses": [_state(ready=True, **RUNS), _state(**DONE)]}, "1/1", "Running", "0"),
        ({"conditions": [], "containerStatuses": [_state(ready=True, **RUNS), _state(**DONE)]},
         "1/1", "NotReady", "0"),
        ({"phase": "Failed", "reason": "Evicted", "containerStatuses": []}, "0/1", "Evicted", "0"),
        ({"phase": "Pending", "containerStatuses": [],
          "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]},
         "0/1", "SchedulingGated", "0"),
    ],
)  # fmt: skip
def test_the_status_word(status: Object, ready: str, word: str, restarts: str) -> None:
    assert _cells("pods", _running(**status))[1:4] == [ready, word, restarts]


@pytest.mark.parametrize(
    ("phase", "reason", "word"),
    [("Running", "", "Terminating"), ("Running", "NodeLost", "Unknown"), ("Succeeded", "", "Completed")],
)
def test_a_pod_that_is_being_deleted(phase: str, reason: str, word: str) -> None:
    stored = _running(phase=phase, reason=reason)
    if phase == "Succeeded":
        stored["status"]["containerStatuses"] = [_state(**DONE)]
    stored["metadata"]["deletionTimestamp"] = CREATED
    assert _cells("pods", stored)[2] == word


INITS = [container(name="one"), container(name="two")]


@pytest.mark.parametrize(
    ("statuses", "word", "restarts"),
    [
        ([_state(**DONE), _state(**RUNS)], "Init:1/2", "0"),
        ([_state(waiting={"reason": "PodInitializing"})], "Init:0/2", "0"),
        ([_state(2, **BACK_OFF)], "Init:CrashLoopBackOff", "2"),
        ([_state(terminated={"exitCode": 3})], "Init:ExitCode:3", "0"),
        ([_state(terminated={"exitCode": 3, "signal": 15})], "Init:Signal:15", "0"),
        ([_state(terminated={"exitCode": 1, "reason": "Error"})], "Init:Error", "0"),
        ([_state(waiting={"reason": "ImagePullBackOff"})], "Init:ImagePullBackOff", "0"),
    ],
)
def test_init_containers_come_first(statuses: list[Object], word: str, restarts: str) -> None:
    stored = created_ok("pods", pod(initContainers=INITS))
    stored["status"] = {"phase": "Pending", "initContainerStatuses": statuses}
    assert _cells("pods", stored)[1:4] == ["0/1", word, restarts]


def test_a_sidecar_counts_among_the_containers() -> None:
    sidecar = container(name="proxy", restartPolicy="Always")
    stored = created_ok("pods", pod(initContainers=[sidecar]))
    proxy = {**_state(1, ready=True, **RUNS), "name": "proxy", "started": True}
    stored["status"] = {"phase": "Running", "initContainerStatuses": [proxy],
                        "containerStatuses": [_state(2, ready=True, **RUNS)]}  # fmt: skip
    assert _cells("pods", stored)[1:4] == ["2/2", "Running", "3"]


def test_readiness_gates() -> None:
    gates = [{"conditionType": "a.b/x"}, {"conditionType": "a.b/y"}]
    stored = created_ok("pods", pod(readinessGates=gates))
    stored["status"]["conditions"] = [{"type": "a.b/x", "status": "True"}]
    assert _cells("pods", stored)[8] == "1/2"


def test_nodes() -> None:
    stored = created_ok("nodes", {
        "metadata": {"name": "node-1", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.1",
                         "containerRuntimeVersion": "process://1"},
        },
    })  # fmt: skip
    assert _cells("nodes", stored) == [
        "node-1", "Ready", "control-plane", "5m", "v1.37.0", "127.0.0.1", "<none>", "Debian", "6.1",
        "process://1",
    ]  # fmt: skip
    stored["spec"]["unschedulable"] = True
    stored["status"]["conditions"][0]["status"] = "Unknown"
    assert _cells("nodes", stored)[1] == "NotReady,SchedulingDisabled"
    bare = created_ok("nodes", {"metadata": {"name": "node-2"}})
    unknown = ["<unknown>"] * 3
    assert _cells("nodes", bare) == ["node-2", "Unknown", "<none>", "5m", "", "<none>", "<none>", *unknown]


def test_workloads() -> None:
    stored = created_ok("deployments", deployment(replicas=3))
    stored["status"] = {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}
    assert _cells("deployments", stored) == ["web", "2/3", 3, 1, "5m", "app", "nginx:1.27", "app=web"]
    replica_set = created_ok("replicasets", deployment(replicas=3))
    assert _cells("replicasets", replica_set) == ["web", 3, 0, 0, "5m", "app", "nginx:1.27", "app=web"]


@pytest.mark.parametrize(
    ("spec", "status", "cells"),
    [
        ({"clusterIP": "10.96.0.5", "selector": {"b": "2", "a": "1"}}, {},
         ["ClusterIP", "10.96.0.5", "<none>", "80/TCP", "5m", "a=1,b=2"]),
        ({"clusterIP": "None", "ports": []}, {}, ["ClusterIP", "None", "<none>", "<none>", "5m", "<none>"]),
        ({"type": "NodePort", "clusterIP": "10.96.0.5", "ports": [
            {"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 53, "protocol": "UDP"}]}, {},
         ["NodePort", "10.96.0.5", "<none>", "80:30080/TCP,53/UDP", "5m", "<none>"]),
        ({"type": "LoadBalancer", "clusterIP": "10.96.0.5"}, {},
         ["LoadBalancer", "10.96.0.5", "<pending>", "80/TCP", "5m", "<none>"]),
        ({"type": "LoadBalancer", "clusterIP": "10.96.0.5"},
         {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "lb"}]}},
         ["LoadBalancer", "10.96.0.5", "1.2.3.4,lb", "80/TCP", "5m", "<none>"]),
        ({"type": "ExternalName", "externalName": "db.example.com", "ports": []}, {},
         ["ExternalName", "<none>", "db.example.com", "<none>", "5m", "<none>"]),
    ],
)  # fmt: skip
def test_services(spec: Object, status: Object, cells: list[str]) -> None:
    stored = created_ok("services", service(**spec))
    stored["status"] = status
    assert _cells("services", stored) == ["web", *cells]


def test_the_small_kinds() -> None:
    assert _cells("namespaces", created_ok("namespaces", {"metadata": {"name": "a"}})) == [
        "a",
        "Active",
        "5m",
    ]
    config = {"metadata": {"name": "a"}, "data": {"x": "1"}, "binaryData": {"y": "AA=="}}
    assert _cells("configmaps", created_ok("configmaps", config)) == ["a", 2, "5m"]
    secret = {"metadata": {"name": "a"}, "stringData": {"x": "1"}}
    assert _cells("secrets", created_ok("secrets", secret)) == ["a", "Opaque", 1, "5m"]
    account = {"metadata": {"name": "a"}, "secrets": [{"name": "t"}]}
    assert _cells("serviceaccounts", created_ok("serviceaccounts", account)) == ["a", 1, "5m"]
    lease = {"metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}}
    assert _cells("leases", created_ok("leases", lease)) == ["a", "me", "5m"]


def test_events() -> None:
    event = created_ok("events", {
        "metadata": {"name": "web.1"}, "type": "Warning", "reason": "BackOff", "message": " it fell \n",
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default", "fieldPath": "spec.x"},
        "source": {"component": "kubelet", "host": "node-1"}, "count": 4,
        "firstTimestamp": CREATED, "lastTimestamp": "2026-01-01T00:04:00Z",
    })  # fmt: skip
    assert _cells("events", event) == [
        "60s", "Warning", "BackOff", "pod/web", "spec.x", "kubelet, node-1", "it fell", "5m", 4, "web.1",
    ]  # fmt: skip
    series = {**event, "series": {"count": 9, "lastObservedTime": "2026-01-01T00:04:59.000000Z"}}
    assert (_cells("events", series)[0], _cells("events", series)[8]) == ("1s", 9)
    modern = created_ok("events", {
        "metadata": {"name": "web.2"}, "type": "Normal", "reason": "Scheduled",
        "involvedObject": {"kind": "Node"}, "reportingComponent": "scheduler",
        "eventTime": "2026-01-01T00:04:58.000000Z",
    })  # fmt: skip
    assert _cells("events", modern) == [
        "2s", "Normal", "Scheduled", "node", "", "scheduler", "", "2s", 1, "web.2",
    ]  # fmt: skip


def test_the_object_in_a_row() -> None:
    kind, stored = resource("configmaps"), created_ok("configmaps", {"metadata": {"name": "a"}})
    partial = {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": stored["metadata"],
    }
    assert table(kind, [stored], NOW)["rows"][0]["object"] == partial
    assert table(kind, [stored], NOW, "Object")["rows"][0]["object"] is stored
    assert "object" not in table(kind, [stored], NOW, "None")["rows"][0]
    whole = table(kind, [], NOW, list_metadata={"resourceVersion": "9"})
    assert (whole["kind"], whole["apiVersion"], whole["metadata"]) == (
        "Table", "meta.k8s.io/v1", {"resourceVersion": "9"},
    )  # fmt: skip
    assert whole["rows"] == []
    assert table(kind, [], NOW, with_columns=False)["columnDefinitions"] is None
    assert partial_metadata_list([stored], {"resourceVersion": "9"})["items"] == [partial]


def test_include_object_is_one_of_three() -> None:
    assert [check_include_object(word) for word in ("", "None", "Object")] == ["Metadata", "None", "Object"]
    with pytest.raises(ApiError, match="unrecognized includeObject value"):
        check_include_object("All")
