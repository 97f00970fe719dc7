from __future__ import annotations

from typing import Any

import pytest
from api_samples import container, create_errors, created_ok, pod, update

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
C0 = "spec.containers[0]"


def _one(**more: Any) -> dict[str, Any]:
    return pod(containers=[container(**more)])


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (pod(containers=[]), ["spec.containers: Required value"]),
        (pod(containers=[{}]), [f"{C0}.name: Required value", f"{C0}.image: Required value"]),
        (_one(name="A"), [f'{C0}.name: Invalid value: "A": {LABEL}']),
        (pod(containers=[container(), container()]), ['spec.containers[1].name: Duplicate value: "app"']),
        (pod(initContainers=[container()]), ['spec.initContainers[0].name: Duplicate value: "app"']),
        (_one(image=" a "),
         [f'{C0}.image: Invalid value: " a ": must not have leading or trailing whitespace']),
        (_one(imagePullPolicy="Later"), [
            f'{C0}.imagePullPolicy: Unsupported value: "Later": supported values: "Always", "IfNotPresent", '
            '"Never"']),
        (pod(restartPolicy="Maybe"), [
            'spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never", '
            '"OnFailure"']),
        (pod(activeDeadlineSeconds=0), [
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"]),
        (pod(terminationGracePeriodSeconds=-1), [
            "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0"]),
        (_one(ports=[{"containerPort": 0}]), [f"{C0}.ports[0].containerPort: Required value"]),
        (_one(ports=[{"containerPort": 70000}]), [
            f"{C0}.ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"]),
        (_one(ports=[{"containerPort": 80, "protocol": "tcp"}]), [
            f'{C0}.ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"']),
        (_one(ports=[{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]),
         [f'{C0}.ports[1].name: Duplicate value: "a"']),
        (_one(ports=[{"containerPort": 1, "name": "80"}]),
         [f'{C0}.ports[0].name: Invalid value: "80": must contain at least one letter (a-z)']),
        (_one(ports=[{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]),
         [f'{C0}.ports[1].hostPort: Duplicate value: "TCP//9"']),
        (_one(env=[{"name": ""}]), [f"{C0}.env[0].name: Required value"]),
        (_one(env=[{"name": "a=b"}]), [
            f'{C0}.env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of '
            "printable ASCII characters other than '='"]),
        (_one(env=[{"name": "a", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]), [
            f'{C0}.env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty']),
        (_one(env=[{"name": "a", "valueFrom": {"secretKeyRef": {"name": "x"}}}]),
         [f"{C0}.env[0].valueFrom.secretKeyRef.key: Required value"]),
        (_one(volumeMounts=[{"name": "v", "mountPath": "/a"}]),
         [f'{C0}.volumeMounts[0].name: Not found: "v"']),
        (pod(volumes=[{"name": "v"}, {"name": "v"}]), ['spec.volumes[1].name: Duplicate value: "v"']),
        (pod(volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
         ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"]),
        (_one(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}), [
            f'{C0}.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1']),
        (_one(resources={"requests": {"cpu": "-1"}}), [
            f'{C0}.resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0']),
        (_one(resources={"requests": {"cpu": "much"}}), [
            f'{C0}.resources.requests[cpu]: Invalid value: "much": quantities must match the regular '
            "expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"]),
        (_one(resources={"limits": {"disk": "1"}}), [
            f'{C0}.resources.limits.disk: Invalid value: "disk": must be a standard resource type or fully '
            "qualified",
            f'{C0}.resources.limits.disk: Invalid value: "disk": must be a standard resource for containers',
            f'{C0}.resources.requests.disk: Invalid value: "disk": must be a standard resource type or fully '
            "qualified",
            f'{C0}.resources.requests.disk: Invalid value: "disk": must be a standard resource for '
            "containers"]),
        (_one(livenessProbe={}), [f"{C0}.livenessProbe: Required value: must specify a handler type"]),
        (_one(livenessProbe={"tcpSocket": {"port": 1}, "successThreshold": 2}),
         [f"{C0}.livenessProbe.successThreshold: Invalid value: 2: must be 1"]),
        (_one(readinessProbe={"httpGet": {"port": 0}}), [
            f"{C0}.readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        (_one(livenessProbe={"exec": {}}), [f"{C0}.livenessProbe.exec.command: Required value"]),
        (pod(initContainers=[container(name="i", livenessProbe={"tcpSocket": {"port": 1}})]), [
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without "
            "restartPolicy=Always"]),
        (pod(tolerations=[{"operator": "Equal", "value": "x"}]), [
            'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is '
            'empty, which means "match all values and all keys"']),
        (pod(tolerations=[{"key": "a", "effect": "Never"}]), [
            'spec.tolerations[0].effect: Unsupported value: "Never": supported values: "NoSchedule", '
            '"PreferNoSchedule", "NoExecute"']),
        (pod(nodeSelector={"a": "b c"}), None),
        (pod(nodeName="Node 1"), None),
        (pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}), [
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: "
            "Required value: must have at least one node selector term"]),
        (pod(topologySpreadConstraints=[{"maxSkew": 0, "topologyKey": "zone"}]), [
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Required value"]),
        (pod(schedulingGates=[{"name": "a"}, {"name": "a"}]),
         ['spec.schedulingGates[1]: Duplicate value: "a"']),
    ],
)  # fmt: skip
def test_the_rules(obj: dict[str, Any], expected: list[str] | None) -> None:
    errors = create_errors("pods", obj)
    if expected is None:
        assert len(errors) == 1
    else:
        assert errors == expected


ONLY = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"


def _set(*path: Any, to: Any) -> Any:
    def change(obj: dict[str, Any]) -> None:
        at: Any = obj
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("spec", "containers", 0, "image", to="nginx:2"),
        _set("spec", "activeDeadlineSeconds", to=5),
        _set("metadata", "labels", to={"a": "b"}),
        lambda obj: obj["spec"]["tolerations"].append({"key": "x", "operator": "Exists"}),
        lambda obj: obj["spec"]["tolerations"][0].__setitem__("tolerationSeconds", 7),
    ],
)
def test_what_may_change(change: Any) -> None:
    _, errors = update("pods", created_ok("pods", pod()), change)
    assert errors == []


@pytest.mark.parametrize(
    ("change", "start", "end"),
    [
        (_set("spec", "nodeName", to="node-1"), ONLY, "changed: spec.nodeName"),
        (_set("spec", "containers", 0, "name", to="other"), ONLY, "changed: spec.containers[0].name"),
        (_set("spec", "containers", 0, "command", to=["sh"]), ONLY, "changed: spec.containers[0].command"),
        (_set("spec", "terminationGracePeriodSeconds", to=1), ONLY,
         "changed: spec.terminationGracePeriodSeconds"),
        (lambda obj: obj["spec"]["containers"].append(container(name="b")),
         "spec.containers: Forbidden: pod updates may not add or remove containers", ""),
        (_set("spec", "tolerations", to=[]),
         "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
         ""),
        (_set("spec", "containers", 0, "image", to=""), "spec.containers[0].image: Required value", ""),
        (_set("spec", "schedulingGates", to=[{"name": "late"}]),
         "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate "
         "'late'", ""),
    ],
)  # fmt: skip
def test_what_may_not_change(change: Any, start: str, end: str) -> None:
    _, (error,) = update("pods", created_ok("pods", pod()), change)
    assert error.startswith(start)
    assert error.endswith(end)


def test_a_deadline_only_comes_closer() -> None:
    old = created_ok("pods", pod(activeDeadlineSeconds=60))
    assert update("pods", old, _set("spec", "activeDeadlineSeconds", to=30))[1] == []
    assert update("pods", old, _set("spec", "activeDeadlineSeconds", to=90))[1] == [
        "spec.activeDeadlineSeconds: Invalid value: 90: must be less than or equal to previous value"
    ]
    assert update("pods", old, lambda obj: obj["spec"].pop("activeDeadlineSeconds"))[1] == [
        "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil "
        "value"
    ]


def test_a_gated_pod_may_be_narrowed_and_let_go() -> None:
    gated = created_ok("pods", pod(schedulingGates=[{"name": "quota"}]))
    assert gated["status"]["conditions"][0]["reason"] == "SchedulingGated"
    assert update("pods", gated, _set("spec", "nodeSelector", to={"zone": "a"}))[1] == []
    assert update("pods", gated, lambda obj: obj["spec"].pop("schedulingGates"))[1] == []
