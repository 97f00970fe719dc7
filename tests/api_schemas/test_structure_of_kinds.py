"""What a typed decoder does to an object: types, unknown fields, nulls, canonical forms."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkube.api.schemas import definitions, patch_meta, schema_of_kind
from raftkube.api.structure import StructureError, conform

CORE = "io.k8s.api.core.v1."
GO = "json: cannot unmarshal "
DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


# The texts were read in Go's encoding/json (UnmarshalTypeError.Error) and sigs.k8s.io/json.
WRONG_TYPES = [
    (DEPLOYMENT, {"spec": {"replicas": "x"}},
     GO + "string into Go struct field DeploymentSpec.spec.replicas of type int32"),
    (DEPLOYMENT, {"spec": "x"},
     GO + "string into Go struct field Deployment.spec of type v1.DeploymentSpec"),
    (DEPLOYMENT, {"spec": {"replicas": 2**31}},
     GO + "number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32"),
    (DEPLOYMENT, {"spec": {"replicas": 1.5}},
     GO + "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
    (DEPLOYMENT, {"spec": {"replicas": True}},
     GO + "bool into Go struct field DeploymentSpec.spec.replicas of type int32"),
    (DEPLOYMENT, {"spec": {"paused": "yes"}},
     GO + "string into Go struct field DeploymentSpec.spec.paused of type bool"),
    (DEPLOYMENT, {"metadata": {"labels": {"a": 1}}},
     GO + "number into Go struct field ObjectMeta.metadata.labels of type string"),
    (DEPLOYMENT, {"metadata": {"labels": []}},
     GO + "array into Go struct field ObjectMeta.metadata.labels of type map[string]string"),
    (DEPLOYMENT, {"metadata": {"name": {}}},
     GO + "object into Go struct field ObjectMeta.metadata.name of type string"),
    (DEPLOYMENT, {"spec": {"template": {"spec": {"containers": {}}}}},
     GO + "object into Go struct field PodSpec.spec.template.spec.containers "
     "of type []v1.Container"),
    (DEPLOYMENT, {"spec": {"template": {"spec": {"containers": [{"name": 5}]}}}},
     GO + "number into Go struct field Container.spec.template.spec.containers.name "
     "of type string"),
    (DEPLOYMENT, {"spec": {"strategy": {"rollingUpdate": {"maxSurge": []}}}},
     GO + "array into Go struct field "
     "RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type int32"),
    (CORE + "Secret", {"data": {"a": "???"}}, "illegal base64 data at input byte 0"),
    (CORE + "Secret", {"data": {"a": "YWJ"}}, "illegal base64 data at input byte 3"),
    (CORE + "Secret", {"data": {"a": 5}},
     GO + "number into Go struct field Secret.data of type []uint8"),
    (CORE + "Pod", {"metadata": {"creationTimestamp": "x"}}, 'parsing time "x"'),
    (CORE + "Pod", {"metadata": {"creationTimestamp": "2024-13-01T00:00:00Z"}}, "parsing time"),
    (CORE + "Pod", {"metadata": {"creationTimestamp": 5}}, "cannot unmarshal number"),
    (CORE + "Pod", {"spec": {"overhead": {"cpu": "1mm"}}}, "unable to parse quantity's suffix"),
    (CORE + "Pod", {"spec": {"overhead": {"cpu": True}}}, "quantities must match the regular expression"),
    (CORE + "Pod", [], GO + "array into Go value of type v1.Pod"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "obj", "text"), WRONG_TYPES, ids=lambda value: str(value)[:60])
def test_a_wrong_type_is_named_as_go_names_it(schema: str, obj: Any, text: str) -> None:
    with pytest.raises(StructureError) as caught:
        conform(obj, schema)
    assert text in str(caught.value)


def test_unknown_fields_are_told_with_their_path_and_dropped() -> None:
    obj = pod(foo=1, containers=[{"name": "c"}, {"name": "d", "bar": {"x": 1}, "env": [{"nmae": "A"}]}])
    obj["extra"] = {}
    assert conform(obj, CORE + "Pod") == [
        'unknown field "spec.foo"', 'unknown field "spec.containers[1].bar"',
        'unknown field "spec.containers[1].env[0].nmae"', 'unknown field "extra"',
    ]  # fmt: skip
    assert obj == pod(containers=[{"name": "c"}, {"name": "d", "env": [{}]}])


def test_field_names_are_case_sensitive() -> None:
    obj = {"metadata": {"Name": "x"}}
    assert conform(obj, CORE + "Pod") == ['unknown field "metadata.Name"']


def test_null_is_absent_in_objects_and_zero_in_lists_and_maps() -> None:
    obj = pod(nodeName=None, containers=[None], tolerations=None)
    obj["metadata"]["labels"] = {"a": None}
    obj["metadata"]["finalizers"] = [None]
    assert conform(obj, CORE + "Pod") == []
    assert obj["spec"] == {"containers": [{}]}
    assert obj["metadata"] == {"name": "p", "labels": {"a": ""}, "finalizers": [""]}


@pytest.mark.parametrize(
    ("given_value", "kept"),
    [("1000m", "1"), (0.5, "500m"), (2, "2"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("0.1", "100m"),
     (1e3, "1k"), ("1e3", "1e3")],
)  # fmt: skip
def test_quantities_become_canonical_strings(given_value: Any, kept: str) -> None:
    obj = pod(overhead={"cpu": given_value})
    conform(obj, CORE + "Pod")
    assert obj["spec"]["overhead"] == {"cpu": kept}


@pytest.mark.parametrize(
    ("given_value", "kept"),
    [("2024-02-29T01:02:03Z", "2024-02-29T01:02:03Z"),
     ("2024-02-29T01:02:03.999Z", "2024-02-29T01:02:03Z"),
     ("2024-02-29T01:02:03+01:00", "2024-02-29T00:02:03Z")],
)  # fmt: skip
def test_times_keep_whole_seconds_in_utc(given_value: str, kept: str) -> None:
    obj = {"metadata": {"creationTimestamp": given_value}}
    conform(obj, CORE + "Pod")
    assert obj["metadata"]["creationTimestamp"] == kept


def test_micro_times_have_six_decimals() -> None:
    obj = {"spec": {"renewTime": "2024-02-29T01:02:03.5+01:00"}}
    conform(obj, "io.k8s.api.coordination.v1.Lease")
    assert obj["spec"]["renewTime"] == "2024-02-29T00:02:03.500000Z"


def test_int_or_string_keeps_what_it_is() -> None:
    obj = {"spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8080}]}}
    assert conform(obj, CORE + "Service") == []
    assert [port["targetPort"] for port in obj["spec"]["ports"]] == ["http", 8080]


def test_free_form_objects_are_left_alone() -> None:
    data = {"anything": [1, None, {"goes": "x"}]}
    obj = {"data": copy.deepcopy(data), "revision": 1}
    assert conform(obj, "io.k8s.api.apps.v1.ControllerRevision") == []
    assert obj["data"] == data


def test_a_definition_may_hold_itself() -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(20):
        schema = {"type": "object", "properties": {"a": schema}, "nonsense": 1}
    obj = {"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}}
    name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition"
    assert len(conform(obj, name)) == 20


def test_every_definition_takes_each_of_its_fields_as_null() -> None:
    for name, schema in definitions().items():
        if "properties" not in schema:
            continue
        obj: dict[str, Any] = dict.fromkeys(schema["properties"])
        assert conform(obj, name) == [], name
        assert obj == {}, name


NAMES = st.sampled_from((
    "metadata", "spec", "status", "containers", "name", "labels", "env", "ports", "resources", "limits",
    "cpu", "data", "volumes", "template", "replicas", "selector", "foo", "creationTimestamp",
    "ownerReferences",
))  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.text(max_size=5)
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(NAMES, JSON, max_size=6), st.sampled_from([CORE + "Pod", DEPLOYMENT, CORE + "Secret"]))
def test_any_object_is_brought_into_shape_or_refused_and_then_stays(obj: dict[str, Any], schema: str) -> None:
    try:
        unknown = conform(obj, schema)
    except StructureError:
        return
    assert all(text.startswith('unknown field "') for text in unknown)
    settled = orjson.dumps(obj)
    assert conform(obj, schema) == []
    assert orjson.dumps(obj) == settled


def test_kinds_find_their_definition() -> None:
    assert schema_of_kind("apps", "v1", "Deployment") == DEPLOYMENT
    assert schema_of_kind("", "v1", "Pod") == CORE + "Pod"
    assert schema_of_kind("", "v1", "Nothing") is None


def test_merge_keys_come_from_the_schemas() -> None:
    containers = patch_meta(CORE + "PodSpec", "containers")
    assert (containers.merges, containers.merge_key, containers.schema) == (True, "name", CORE + "Container")
    volumes = patch_meta(CORE + "PodSpec", "volumes")
    assert volumes.strategies == ("merge", "retainKeys")
    assert not patch_meta(CORE + "PodSpec", "tolerations").merges
    assert not patch_meta(CORE + "PodSpec", "nothing").known
    assert patch_meta("", "anything").known
