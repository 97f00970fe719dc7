"""Whatever a client sends, once it has its kind's types: no rule, default or row may fail on it."""

from __future__ import annotations

from typing import Any

import pytest
from api_samples import CREATED, T0, container, deployment, pod, resource, service
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkube.api.metadata import prepare_new, prepare_update
from raftkube.api.objects import copy_json
from raftkube.api.resource import Object
from raftkube.api.status import ApiError, FieldError
from raftkube.api.structure import StructureError, conform
from raftkube.api.validation import validate_create, validate_status_update, validate_update

_PROBE = {"httpGet": {"port": 80}, "periodSeconds": 1}
_FULL = container(
    ports=[{"containerPort": 80, "name": "http", "hostPort": 80}], livenessProbe=_PROBE, startupProbe=_PROBE,
    env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    envFrom=[{"configMapRef": {"name": "x"}}], volumeMounts=[{"name": "v", "mountPath": "/v"}],
    resources={"limits": {"cpu": "1"}, "requests": {"a.b/gpu": "1"}},
    lifecycle={"preStop": {"exec": {"command": ["x"]}}},
)  # fmt: skip
_TERM = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}
_SPEC = pod(
    containers=[_FULL], initContainers=[container(name="i", restartPolicy="Always")],
    volumes=[{"name": "v", "configMap": {"name": "x", "items": [{"key": "k", "path": "p"}]}}],
    tolerations=[{"key": "a", "operator": "Exists"}], nodeSelector={"a": "b"},
    affinity={
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
             "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": _TERM}]},
    },
    topologySpreadConstraints=[{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", **_TERM}],
    schedulingGates=[{"name": "a"}], readinessGates=[{"conditionType": "a"}],
)  # fmt: skip
_STATUS = {
    "phase": "Running", "podIPs": [{"ip": "1.2.3.4"}],
    "conditions": [{"type": "Ready", "status": "True"}],
    "containerStatuses": [{"name": "app", "state": {"terminated": {"exitCode": 1, "finishedAt": CREATED}},
                           "lastState": {"terminated": {"finishedAt": CREATED}}, "restartCount": 2}],
    "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "X"}}}],
}  # fmt: skip
_META = {
    "name": "a", "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["a.b/c"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u", "controller": True}],
}  # fmt: skip
SAMPLES: dict[str, Object] = {
    "pods": {**_SPEC, "metadata": _META, "status": _STATUS},
    "deployments": deployment(
        selector={"matchExpressions": [{"key": "app", "operator": "Exists"}]},
        strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "5%"}},
    ),
    "replicasets": deployment(selector={
        "matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}),
    "services": {**service(type="NodePort", clusterIP="10.0.0.1", selector={"a": "b"},
                         externalIPs=["1.2.3.4"]),
                 "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}},
    "nodes": {"metadata": _META, "spec": {"taints": [{"key": "a", "effect": "NoExecute"}]},
              "status": {"capacity": {"cpu": "1"}, "addresses": [{"type": "InternalIP", "address": "x"}],
                         "conditions": [{"type": "Ready", "status": "True"}],
                         "nodeInfo": {"kubeletVersion": "x"}}},
    "namespaces": {"metadata": _META, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}},
    "secrets": {"metadata": _META, "data": {"a": "AA=="}, "stringData": {"b": "c"},
                "type": "kubernetes.io/tls"},
    "configmaps": {"metadata": _META, "data": {"a": "b"}, "binaryData": {"c": "AA=="}, "immutable": True},
    "serviceaccounts": {"metadata": _META, "secrets": [{"name": "x"}]},
    "leases": {"metadata": _META, "spec": {"holderIdentity": "x", "leaseDurationSeconds": 15,
                                           "renewTime": "2026-01-01T00:00:00.000000Z"}},
    "events": {"metadata": _META, "involvedObject": {"kind": "Pod", "name": "x"}, "count": 1,
               "lastTimestamp": CREATED, "series": {"count": 1}, "source": {"component": "x"}},
}  # fmt: skip
_LEAVES = st.sampled_from(
    [None, "", "x", "X Y", "Always", "Exists", "In", "None", "ExternalName", "LoadBalancer", "5%", "-1",
     "AA==", "1Gi", CREATED, 0, 1, -1, 65536, 2**31 - 1, 2**31, True, False, [], {}, [None], {"a": None},
     [{}], {"": ""}, ["a"]]
)  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, member in members:
        found += _paths(member, (*path, name))
    return found


def _mutate(obj: Object, draw: Any) -> Object:
    new = copy_json(obj)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_paths(new)))
        at: Any = new
        for name in path[:-1]:
            at = at[name]
        if draw(st.integers(0, 3)) == 0:
            del at[path[-1]]
        else:
            at[path[-1]] = copy_json(draw(_LEAVES))
        if not new:
            break
    return new


def _only_field_errors(errors: list[FieldError]) -> None:
    for error in errors:
        assert isinstance(error, FieldError)
        assert error.field
        assert error.message


@pytest.mark.parametrize("plural", sorted(SAMPLES))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_nothing_fails_on_a_well_typed_object(plural: str, data: st.DataObject) -> None:
    kind = resource(plural)
    sent = _mutate(SAMPLES[plural], data.draw)
    try:
        conform(sent, kind.schema)
        kind.strategy.default(sent)
        once = copy_json(sent)
        kind.strategy.default(once)
        assert once == sent, "defaults must settle at once"
        status = copy_json(sent.get("status") or {})
        namespace = "default" if kind.namespaced else ""
        prepare_new(sent, kind, namespace, uid="u", now_rfc3339=CREATED, suffix="abcde")
    except (StructureError, ApiError):
        return  # refused with a 400, before anything of ours looks at it
    _only_field_errors(validate_create(kind, sent))
    _shown(plural, {**sent, "status": status})
    _updated(plural, sent, data)


def _shown(plural: str, obj: Object) -> None:
    kind = resource(plural)
    assert len(kind.row(obj, T0)) == len(kind.columns)
    assert all(isinstance(getter(obj), str) for getter in kind.field_selectors.values())


def _updated(plural: str, old: Object, data: st.DataObject) -> None:
    kind = resource(plural)
    new = _mutate(old, data.draw)
    subresource = data.draw(st.sampled_from(["", "status"]))
    try:
        conform(new, kind.schema)
        kind.strategy.default(new)
        prepare_update(new, old, kind, subresource=subresource)
    except (StructureError, ApiError):
        return
    check = validate_status_update if subresource else validate_update
    _only_field_errors(check(kind, new, old))
