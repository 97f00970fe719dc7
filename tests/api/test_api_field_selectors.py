from __future__ import annotations

import pytest
from api_samples import resource
from hypothesis import given
from hypothesis import strategies as st

from raftkube.api.field_selectors import parse_field_selector, selectable_fields
from raftkube.api.status import ApiError

RUNNING = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"nodeName": "node-1", "restartPolicy": "Always", "hostNetwork": True},
    "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True), ("metadata.name=web", True), ("metadata.name==web", True), ("metadata.name!=web", False),
        ("metadata.namespace=default", True), ("spec.nodeName=node-1,status.phase!=Succeeded", True),
        ("spec.nodeName=node-1,status.phase!=Running", False), ("spec.nodeName=", False),
        ("status.nominatedNodeName=", True), ("spec.hostNetwork=true", True),
        ("metadata.name=web,metadata.name=web", True), ("metadata.name=web,metadata.name=db", False),
        ("status.podIPs=10.0.0.1\\,fd00::1", True), ("metadata.name=we\\=b", False),
        (",metadata.name=web,", True),
    ],
)  # fmt: skip
def test_terms(text: str, selected: bool) -> None:
    assert parse_field_selector(text, resource("pods")).matches(RUNNING) is selected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("spec.containers=x", "field label not supported: spec.containers"),
        ("metadata.name", "write field=value"),
        ("metadata.name=a\\b", "invalid escape sequence"),
        ("metadata.name=a\\", "invalid escape sequence"),
        ("metadata.name=a=b", "unescaped character"),
    ],
)
def test_what_cannot_be_selected_is_a_400(text: str, why: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_field_selector(text, resource("pods"))
    assert caught.value.code == 400
    assert why in caught.value.message


def test_a_cluster_scoped_kind_has_no_namespace_to_select() -> None:
    with pytest.raises(ApiError):
        parse_field_selector("metadata.namespace=x", resource("nodes"))
    assert selectable_fields(resource("nodes")) == ["metadata.name", "spec.unschedulable"]


def test_the_name_that_a_selector_asks_for() -> None:
    pods = resource("pods")
    assert parse_field_selector("metadata.name=web", pods).required_value("metadata.name") == "web"
    assert parse_field_selector("metadata.name!=web", pods).required_value("metadata.name") is None


@given(st.text(max_size=12))
def test_an_escaped_value_selects_exactly_itself(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
    selector = parse_field_selector(f"metadata.name={escaped}", resource("pods"))
    assert selector.matches({"metadata": {"name": value}})
    assert not selector.matches({"metadata": {"name": value + "x"}})


@pytest.mark.parametrize(
    ("plural", "text", "obj"),
    [
        ("nodes", "spec.unschedulable=false", {"spec": {}}),
        ("nodes", "spec.unschedulable=true", {"spec": {"unschedulable": True}}),
        ("namespaces", "status.phase=Active", {"status": {"phase": "Active"}}),
        ("secrets", "type=Opaque", {"type": "Opaque"}),
        ("services", "spec.clusterIP=None,spec.type=ClusterIP",
         {"spec": {"clusterIP": "None", "type": "ClusterIP"}}),
        ("replicasets", "status.replicas=0", {"status": {}}),
        ("replicasets", "status.replicas=2", {"status": {"replicas": 2}}),
        ("events", "involvedObject.kind=Pod,involvedObject.name=web,reason=Started,type=Normal",
         {"involvedObject": {"kind": "Pod", "name": "web"}, "reason": "Started", "type": "Normal"}),
        ("events", "source=kubelet", {"source": {"component": "kubelet"}}),
        ("events", "source=sched,reportingComponent=sched", {"reportingComponent": "sched"}),
    ],
)  # fmt: skip
def test_fields_of_each_kind(plural: str, text: str, obj: dict[str, object]) -> None:
    assert parse_field_selector(text, resource(plural)).matches(obj)
