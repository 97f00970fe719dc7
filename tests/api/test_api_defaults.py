from __future__ import annotations

from typing import Any

import pytest
from api_samples import container, create, created_ok, deployment, pod, service, update

TOLERATIONS = [
    {
        "key": f"node.kubernetes.io/{name}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 300,
    }
    for name in ("not-ready", "unreachable")
]


def test_a_pod_in_full() -> None:
    stored = created_ok("pods", pod())
    assert stored["spec"] == {
        "containers": [{
            "name": "app", "image": "nginx:1.27", "imagePullPolicy": "IfNotPresent", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        }],
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler", "securityContext": {}, "enableServiceLinks": True,
        "serviceAccountName": "default", "serviceAccount": "default", "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority", "tolerations": TOLERATIONS,
    }  # fmt: skip
    assert stored["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"), ("nginx:latest", "Always"), ("nginx:1.27", "IfNotPresent"),
        ("registry:5000/nginx", "Always"), ("registry:5000/a/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "0" * 64, "IfNotPresent"), ("nginx:latest@sha256:" + "0" * 64, "Always"),
    ],
)  # fmt: skip
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    stored = created_ok("pods", pod(containers=[{"name": "app", "image": image}]))
    assert stored["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_what_the_author_said_stays() -> None:
    own = {
        "restartPolicy": "Never", "dnsPolicy": "Default", "terminationGracePeriodSeconds": 0,
        "schedulerName": "mine", "enableServiceLinks": False, "serviceAccountName": "robot",
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
                         "tolerationSeconds": 5}],
    }  # fmt: skip
    spec = created_ok("pods", pod(**own))["spec"]
    assert {name: spec[name] for name in own if name != "tolerations"} == {
        name: value for name, value in own.items() if name != "tolerations"
    }
    assert spec["tolerations"] == [own["tolerations"][0], TOLERATIONS[1]]
    assert spec["serviceAccount"] == "robot"
    everything = [{"operator": "Exists"}]
    assert created_ok("pods", pod(tolerations=everything))["spec"]["tolerations"] == everything


def test_probes_ports_and_env() -> None:
    full = container(
        ports=[{"containerPort": 80}],
        readinessProbe={"httpGet": {"port": 80}},
        livenessProbe={"grpc": {"port": 9000}, "periodSeconds": 3},
        lifecycle={"preStop": {"httpGet": {"port": 80, "path": "/bye"}}},
        env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    )
    stored = created_ok("pods", pod(containers=[full]))["spec"]["containers"][0]
    timing = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    assert stored["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert stored["readinessProbe"] == {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, **timing}
    assert stored["livenessProbe"] == {**timing, "grpc": {"port": 9000, "service": ""}, "periodSeconds": 3}
    assert stored["lifecycle"]["preStop"]["httpGet"] == {"port": 80, "path": "/bye", "scheme": "HTTP"}
    assert stored["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"


def test_volumes() -> None:
    volumes = [
        {"name": "a"}, {"name": "b", "configMap": {"name": "x"}},
        {"name": "c", "secret": {"secretName": "x"}}, {"name": "d", "hostPath": {"path": "/x"}},
        {"name": "e", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ]  # fmt: skip
    assert created_ok("pods", pod(volumes=volumes))["spec"]["volumes"] == [
        {"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "x", "defaultMode": 420}},
        {"name": "c", "secret": {"secretName": "x", "defaultMode": 420}},
        {"name": "d", "hostPath": {"path": "/x", "type": ""}},
        {"name": "e", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}},
    ]  # fmt: skip


def test_host_network_ports_are_the_hosts() -> None:
    full = container(ports=[{"containerPort": 80}])
    stored = created_ok("pods", pod(hostNetwork=True, containers=[full]))
    assert stored["spec"]["containers"][0]["ports"][0]["hostPort"] == 80


@pytest.mark.parametrize(
    ("resources", "requests", "qos"),
    [
        ({}, None, "BestEffort"),
        ({"limits": {"cpu": "1000m", "memory": "1024Mi"}}, {"cpu": "1", "memory": "1Gi"}, "Guaranteed"),
        ({"limits": {"cpu": "0.5"}}, {"cpu": "500m"}, "Burstable"),
        ({"requests": {"cpu": "100m"}}, {"cpu": "100m"}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.5"}},
         {"cpu": "500m", "memory": "1Gi"}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}},
         {"cpu": "1", "memory": "1Gi"}, "Guaranteed"),
    ],
)  # fmt: skip
def test_resources_and_the_qos_class(resources: Any, requests: Any, qos: str) -> None:
    stored = created_ok("pods", pod(containers=[container(resources=resources)]))
    assert stored["spec"]["containers"][0]["resources"].get("requests") == requests
    assert stored["status"]["qosClass"] == qos


def test_a_template_is_no_pod() -> None:
    """Limits become requests, links and tolerations are set, only in pods themselves."""
    template = deployment()["spec"]["template"]
    template["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1"}}
    spec = created_ok("deployments", deployment(template=template))["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    assert not {"enableServiceLinks", "tolerations", "serviceAccountName", "priority"} & spec.keys()
    assert spec["restartPolicy"] == "Always"


def test_a_deployment() -> None:
    spec = created_ok("deployments", deployment())["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    zero = created_ok("deployments", deployment(replicas=0, strategy={"type": "Recreate"}))["spec"]
    assert (zero["replicas"], zero["strategy"]) == (0, {"type": "Recreate"})
    half = deployment(strategy={"rollingUpdate": {"maxSurge": 1}})
    assert created_ok("deployments", half)["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": "25%",
    }


def test_a_replica_set() -> None:
    stored = created_ok("replicasets", deployment())
    assert (stored["spec"]["replicas"], stored["status"]) == (1, {"replicas": 0})


def test_services() -> None:
    spec = created_ok("services", service(clusterIP="10.96.0.5"))["spec"]
    assert spec == {
        "type": "ClusterIP", "sessionAffinity": "None", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
    }  # fmt: skip
    balanced = created_ok("services", service(type="LoadBalancer", sessionAffinity="ClientIP"))["spec"]
    assert balanced["externalTrafficPolicy"] == "Cluster"
    assert balanced["allocateLoadBalancerNodePorts"] is True
    assert balanced["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    external = created_ok("services", service(type="ExternalName", externalName="a.b", ports=[]))["spec"]
    assert "ipFamilies" not in external


def test_an_update_that_leaves_allocated_fields_out_keeps_them() -> None:
    ports = [{"port": 80, "nodePort": 30080}]
    old = created_ok("services", service(type="NodePort", clusterIP="10.96.0.5", ports=ports))

    def rewrite(obj: dict[str, Any]) -> None:
        obj["spec"] = {"type": "NodePort", "ports": [{"port": 80}], "selector": {"a": "b"}}

    new, errors = update("services", old, rewrite)
    assert errors == []
    assert (new["spec"]["clusterIP"], new["spec"]["clusterIPs"]) == ("10.96.0.5", ["10.96.0.5"])
    assert new["spec"]["ports"][0]["nodePort"] == 30080


def _retype(kind: str, **more: Any) -> Any:
    return lambda obj: obj["spec"].update(type=kind, **more)


def test_a_service_that_changes_its_type_sheds_what_belonged_to_the_old_one() -> None:
    ports = [{"port": 80, "nodePort": 30080}]
    old = created_ok("services", service(type="LoadBalancer", clusterIP="10.96.0.5", ports=ports))
    inner, errors = update("services", old, _retype("ClusterIP"))
    assert errors == []
    assert inner["spec"] == created_ok("services", service(clusterIP="10.96.0.5"))["spec"]
    outer, errors = update("services", inner, _retype("ExternalName", externalName="a.b", ports=[]))
    assert errors == []
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "internalTrafficPolicy"} & outer["spec"].keys()
    _, errors = update("services", inner, _retype("ClusterIP", ports=[{"port": 80, "nodePort": 30081}]))
    assert errors == ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]


def test_a_namespace() -> None:
    stored = created_ok("namespaces", {"metadata": {"name": "team"}})
    assert stored["spec"] == {"finalizers": ["kubernetes"]}
    assert stored["status"] == {"phase": "Active"}
    assert stored["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}
    generated = created_ok("namespaces", {"metadata": {"generateName": "team-"}})
    assert generated["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team-x7k2p"}
    new, _ = update("namespaces", stored, lambda obj: obj["spec"].__setitem__("finalizers", []))
    assert new["spec"] == {"finalizers": ["kubernetes"]}


def test_a_secret_writes_string_data_into_data() -> None:
    secret = {"metadata": {"name": "a"}, "data": {"x": "AA==", "y": "AA=="}, "stringData": {"x": "hé"}}
    stored = created_ok("secrets", secret)
    assert stored["type"] == "Opaque"
    assert stored["data"] == {"x": "aMOp", "y": "AA=="}
    assert "stringData" not in stored


def test_a_node_keeps_the_status_that_its_kubelet_registers() -> None:
    node = {"metadata": {"name": "node-1"}, "status": {"capacity": {"cpu": 2, "memory": "4096Mi"}}}
    stored = created_ok("nodes", node)
    assert stored["status"]["capacity"] == {"cpu": "2", "memory": "4Gi"}
    assert stored["status"]["allocatable"] == {"cpu": "2", "memory": "4Gi"}


@pytest.mark.parametrize(
    ("plural", "obj"),
    [
        ("pods", pod(containers=[container(resources={"limits": {"cpu": "0.5"}})])),
        ("pods", pod(hostNetwork=True, containers=[container(ports=[{"containerPort": 1}])])),
        ("deployments", deployment()), ("services", service(type="LoadBalancer")),
        ("secrets", {"metadata": {"name": "a"}, "stringData": {"a": "b"}}),
        ("namespaces", {"metadata": {"name": "a"}}), ("nodes", {"metadata": {"name": "a"}}),
    ],
)  # fmt: skip
def test_defaults_are_the_same_the_second_time(plural: str, obj: dict[str, Any]) -> None:
    stored, _ = create(plural, obj)
    again, errors = update(plural, stored, lambda same: None)
    assert errors == []
    assert again == stored
