"""The rules of everything but pods."""

from __future__ import annotations

from typing import Any

import pytest
from api_samples import container, create_errors, created_ok, deployment, resource, service, update

from raftkube.api.resource import Object
from raftkube.api.validation import validate_status_update


def _deploy(**spec: Any) -> Object:
    return deployment(**spec)


def _template(labels: Any = None, **spec: Any) -> Object:
    labels = {"app": "web"} if labels is None else labels
    return {"metadata": {"labels": labels}, "spec": {"containers": [container()], **spec}}


def _rolling(unavailable: Any, surge: Any) -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}


ROLLING = "spec.strategy.rollingUpdate"
MISMATCH = (
    'spec.template.metadata.labels: Invalid value: {"app":"db"}: `selector` does not match template `labels`'
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"selector": None}, ["spec.selector: Required value"]),
        ({"selector": {}}, ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]),
        ({"template": _template({"app": "db"})}, [MISMATCH]),
        ({"replicas": -1}, ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        ({"template": _template(restartPolicy="Never")}, [
            'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"']),
        ({"template": _template(activeDeadlineSeconds=5)}, [
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not "
            "Supported"]),
        ({"template": _template(containers=[{"name": "a"}])},
         ["spec.template.spec.containers[0].image: Required value"]),
        ({"strategy": {"type": "Fast"}}, [
            'spec.strategy.type: Unsupported value: "Fast": supported values: "Recreate", "RollingUpdate"']),
        ({"strategy": {"type": "Recreate", "rollingUpdate": {}}}, [
            f"{ROLLING}: Forbidden: may not be specified when strategy `type` is 'Recreate'"]),
        ({"strategy": _rolling(0, 0)}, [
            f"{ROLLING}.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]),
        ({"strategy": _rolling("0%", 0)}, [
            f'{ROLLING}.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0']),
        ({"strategy": _rolling("101%", 0)},
         [f'{ROLLING}.maxUnavailable: Invalid value: "101%": must not be greater than 100%']),
        ({"strategy": _rolling("half", 1)}, [
            f'{ROLLING}.maxUnavailable: Invalid value: "half": a valid percent string must be a numeric '
            "followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"]),
        ({"progressDeadlineSeconds": 5, "minReadySeconds": 5}, [
            "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"]),
    ],
)  # fmt: skip
def test_deployments(spec: Object, expected: list[str]) -> None:
    assert create_errors("deployments", _deploy(**spec)) == expected


@pytest.mark.parametrize("plural", ["deployments", "replicasets"])
def test_a_selector_is_for_ever(plural: str) -> None:
    old = created_ok(plural, deployment())

    def rename(obj: Object) -> None:
        obj["spec"]["selector"] = {"matchLabels": {"app": "db"}}
        obj["spec"]["template"]["metadata"]["labels"] = {"app": "db"}

    assert update(plural, old, rename)[1] == [
        'spec.selector: Invalid value: {"matchLabels":{"app":"db"}}: field is immutable'
    ]


@pytest.mark.parametrize("plural", ["deployments", "replicasets"])
def test_the_counts_in_a_status_add_up(plural: str) -> None:
    kind, old = resource(plural), created_ok(plural, deployment())

    def errors(**status: int) -> list[str]:
        new = {**old, "status": status}
        return [str(error) for error in validate_status_update(kind, new, old)]

    assert errors(replicas=3, readyReplicas=2, availableReplicas=2) == []
    assert errors(replicas=2, readyReplicas=-1) == [
        "status.readyReplicas: Invalid value: -1: must be greater than or equal to 0",
        "status.availableReplicas: Invalid value: 0: cannot be greater than readyReplicas",
    ]
    assert errors(replicas=1, readyReplicas=2) == [
        "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"
    ]
    assert errors(replicas=3, readyReplicas=1, availableReplicas=2) == [
        "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"
    ]


def test_replica_sets() -> None:
    assert create_errors("replicasets", deployment(template=_template({"app": "db"}))) == [MISMATCH]
    assert create_errors("replicasets", deployment(minReadySeconds=-1)) == [
        "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"ports": []}, ["spec.ports: Required value"]),
        ({"ports": [], "clusterIP": "None"}, []),
        ({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}, ["spec.ports[0].name: Required value"]),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "a"}]}, [
            'spec.ports[1].name: Duplicate value: "a"',
            'spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}']),
        ({"ports": [{"port": 0}]}, [
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        ({"ports": [{"port": 80, "protocol": "ICMP"}]}, [
            'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"']),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, [
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]),
        ({"type": "Outside"}, [
            'spec.type: Unsupported value: "Outside": supported values: "ClusterIP", "ExternalName", '
            '"LoadBalancer", "NodePort"']),
        ({"type": "ExternalName"}, ["spec.externalName: Required value"]),
        ({"clusterIP": "10.0.0"}, [
            'spec.clusterIPs[0]: Invalid value: "10.0.0": must be a valid IP address, (e.g. 10.9.8.7 or '
            "2001:db8::ffff)"]),
        ({"sessionAffinity": "Sticky"}, [
            'spec.sessionAffinity: Unsupported value: "Sticky": supported values: "ClientIP", "None"']),
    ],
)  # fmt: skip
def test_services(spec: Object, expected: list[str]) -> None:
    assert create_errors("services", service(**spec)) == expected


def test_a_service_name_starts_with_a_letter() -> None:
    (error,) = create_errors("services", {**service(), "metadata": {"name": "1web"}})
    assert error.startswith('metadata.name: Invalid value: "1web": a DNS-1035 label must consist of')


def test_a_cluster_address_is_for_ever() -> None:
    old = created_ok("services", service(clusterIP="10.96.0.5"))

    def move(obj: Object) -> None:
        obj["spec"].update(clusterIP="10.96.0.6", clusterIPs=["10.96.0.6"])

    assert update("services", old, move)[1] == [
        'spec.clusterIPs[0]: Invalid value: ["10.96.0.6"]: may not change once set'
    ]


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"type": "kubernetes.io/tls"}, ["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
        ({"type": "kubernetes.io/ssh-auth"}, ["data[ssh-privatekey]: Required value"]),
        ({"type": "kubernetes.io/basic-auth"},
         ["data[username]: Required value", "data[password]: Required value"]),
        ({"type": "kubernetes.io/basic-auth", "stringData": {"password": "x"}}, []),
        ({"type": "kubernetes.io/dockerconfigjson"}, ["data[.dockerconfigjson]: Required value"]),
        ({"type": "kubernetes.io/service-account-token"},
         ["metadata.annotations[kubernetes.io/service-account.name]: Required value"]),
        ({"data": {"a b": "AA=="}}, [
            'data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '
            "'-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is "
            "'[-._a-zA-Z0-9]+')"]),
        ({"stringData": {"a": "x" * (1 << 20)}}, []),
        ({"stringData": {"a": "x" * (1 << 20), "b": "x"}},
         ["data: Too long: may not be more than 1048576 bytes"]),
    ],
)  # fmt: skip
def test_secrets(obj: Object, expected: list[str]) -> None:
    assert create_errors("secrets", {"metadata": {"name": "a"}, **obj}) == expected


def test_a_secret_is_never_shown_in_an_error() -> None:
    secret = {"metadata": {"name": "a"}, "data": {"a": "hunter2!"}}
    (error,) = create_errors("secrets", secret)
    assert "hunter2" not in error
    docker = {
        "metadata": {"name": "a"}, "type": "kubernetes.io/dockercfg", "stringData": {".dockercfg": "hunter2"},
    }  # fmt: skip
    (error,) = create_errors("secrets", docker)
    assert error.startswith('data[.dockercfg]: Invalid value: "<secret contents redacted>"')
    assert "hunter2" not in error


def test_what_is_immutable_stays() -> None:
    old = created_ok("secrets", {"metadata": {"name": "a"}, "immutable": True, "stringData": {"a": "b"}})
    text = "Forbidden: field is immutable when `immutable` is set"
    assert update("secrets", old, lambda obj: obj["data"].update(a="AA=="))[1] == [f"data: {text}"]
    assert update("secrets", old, lambda obj: obj.pop("immutable"))[1] == [f"immutable: {text}"]
    assert update("secrets", old, lambda obj: obj["metadata"].update(labels={"a": "b"}))[1] == []
    assert update("secrets", old, lambda obj: obj.update(type="other"))[1] == [
        'type: Invalid value: "other": field is immutable'
    ]
    config = created_ok("configmaps", {"metadata": {"name": "a"}, "immutable": True, "data": {"a": "b"}})
    assert update("configmaps", config, lambda obj: obj.update(data={}))[1] == [f"data: {text}"]


def test_config_maps() -> None:
    both = {"metadata": {"name": "a"}, "data": {"a": "1"}, "binaryData": {"a": "AA=="}}
    assert create_errors("configmaps", both) == [
        'data[a]: Invalid value: "a": duplicate of key present in binaryData'
    ]
    big = {"metadata": {"name": "a"}, "data": {"a": "x" * (1 << 20), "b": "x"}}
    assert create_errors("configmaps", big) == ["[]: Too long: may not be more than 1048576 bytes"]


def test_leases() -> None:
    lease = {"metadata": {"name": "a"}, "spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}
    assert create_errors("leases", lease) == [
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
    ]


def test_events_live_with_what_they_are_about() -> None:
    event = {"metadata": {"name": "a"}, "involvedObject": {"kind": "Pod", "namespace": "other"}}
    assert create_errors("events", event) == [
        'involvedObject.namespace: Invalid value: "other": does not match event.namespace'
    ]
    assert create_errors("events", {"metadata": {"name": "a"}, "involvedObject": {"kind": "Node"}}) == []


def test_nodes() -> None:
    taint = {"key": "a", "effect": "NoSchedule"}
    twice = {"metadata": {"name": "a"}, "spec": {"taints": [taint, taint]}}
    assert create_errors("nodes", twice) == [
        'spec.taints[1]: Duplicate value: {"effect":"NoSchedule","key":"a"}'
    ]
    bad = {"metadata": {"name": "a"}, "spec": {"taints": [{"key": "a", "effect": "Never"}]}}
    assert create_errors("nodes", bad) == [
        'spec.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", '
        '"PreferNoSchedule", "NoExecute"'
    ]
    old = created_ok("nodes", {"metadata": {"name": "a"}, "spec": {"providerID": "x://1"}})
    assert update("nodes", old, lambda obj: obj["spec"].update(unschedulable=True, taints=[taint]))[1] == []
    (error,) = update("nodes", old, lambda obj: obj["spec"].update(providerID="x://2"))[1]
    assert error.startswith("spec.providerID: Forbidden: node updates may not change providerID")


def test_a_namespace_name_is_a_label() -> None:
    (error,) = create_errors("namespaces", {"metadata": {"name": "a.b"}})
    assert error.startswith('metadata.name: Invalid value: "a.b": a lowercase RFC 1123 label must consist of')
