from __future__ import annotations

from typing import Any

import pytest
from api_samples import CREATED, create, create_errors, created_ok, deployment, pod, resource, update

from raftkube.api.metadata import generate_name, prepare_new, prepare_update
from raftkube.api.objects import copy_json
from raftkube.api.status import ApiError, invalid

CONFIG = {"metadata": {"name": "settings"}, "data": {"a": "1"}}


def _with_meta(**meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": "settings", **meta}}


def test_a_new_object_gets_what_only_the_server_may_set() -> None:
    sent = {
        "metadata": {
            "name": "web", "uid": "mine", "creationTimestamp": None, "generation": 7, "selfLink": "/x",
            "deletionTimestamp": CREATED, "deletionGracePeriodSeconds": 3, "managedFields": [{}],
            "labels": {"app": "web"},
        },
        "spec": pod()["spec"],
    }  # fmt: skip
    stored = created_ok("pods", sent)
    assert stored["metadata"] == {
        "name": "web", "namespace": "default", "uid": "uid-1", "creationTimestamp": CREATED,
        "generation": 1, "labels": {"app": "web"},
    }  # fmt: skip
    assert (stored["apiVersion"], stored["kind"]) == ("v1", "Pod")


def test_generation_counts_only_where_upstream_counts() -> None:
    assert "generation" not in created_ok("configmaps", CONFIG)["metadata"]
    assert created_ok("deployments", deployment())["metadata"]["generation"] == 1


def test_generate_name_adds_five_characters_and_cuts_long_bases() -> None:
    stored = created_ok("configmaps", {"metadata": {"generateName": "web-"}})
    assert stored["metadata"]["name"] == "web-x7k2p"
    assert stored["metadata"]["generateName"] == "web-"
    assert len(generate_name("b" * 100, "x7k2p")) == 63
    named = created_ok("configmaps", {"metadata": {"generateName": "web-", "name": "own"}})
    assert named["metadata"]["name"] == "own"


def test_another_namespace_than_the_requests_is_a_400() -> None:
    with pytest.raises(ApiError) as caught:
        create("configmaps", _with_meta(namespace="other"))
    assert (caught.value.code, caught.value.message) == (
        400,
        "the namespace of the provided object does not match the namespace sent on the request",
    )


def test_a_resource_version_on_create_is_a_400() -> None:
    with pytest.raises(ApiError, match="resourceVersion should not be set on objects to be created"):
        create("configmaps", _with_meta(resourceVersion="5"))


def test_a_cluster_scoped_object_loses_its_namespace() -> None:
    stored = created_ok("namespaces", {"metadata": {"name": "team", "namespace": "x"}})
    assert "namespace" not in stored["metadata"]


def test_metadata_that_is_no_object_is_a_400() -> None:
    with pytest.raises(ApiError) as caught:
        prepare_new(
            {"metadata": []}, resource("configmaps"), "default", uid="u", now_rfc3339=CREATED, suffix="aaaaa"
        )
    assert caught.value.code == 400


SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u"}


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"name": ""}, ["metadata.name: Required value: name or generateName is required"]),
        ({"name": "Web"}, [f'metadata.name: Invalid value: "Web": {SUBDOMAIN}']),
        ({"name": "a" * 254},
         [f'metadata.name: Invalid value: "{"a" * 254}": must be no more than 253 bytes']),
        ({"labels": {"a/b/c": "x"}}, [
            'metadata.labels: Invalid value: "a/b/c": a qualified name must consist of alphanumeric '
            "characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. "
            "'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"]),
        ({"labels": {"a": "x" * 64}},
         [f'metadata.labels: Invalid value: "{"x" * 64}": must be no more than 63 bytes']),
        ({"labels": {"/a": ""}}, ['metadata.labels: Invalid value: "/a": prefix part must be non-empty']),
        ({"annotations": {"a": "x" * 262144}},
         ["metadata.annotations: Too long: may not be more than 262144 bytes"]),
        ({"annotations": {"Example.com/A": "any text, really"}}, []),
        ({"finalizers": ["orphan", "foregroundDeletion"]}, [
            'metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and '
            "foregroundDeletion cannot be both set"]),
        ({"ownerReferences": [OWNER]}, []),
        ({"ownerReferences": [{**OWNER, "uid": "", "name": ""}]}, [
            'metadata.ownerReferences.name: Invalid value: "": must not be empty',
            'metadata.ownerReferences.uid: Invalid value: "": must not be empty']),
        ({"ownerReferences": [{**OWNER, "apiVersion": ""}]},
         ['metadata.ownerReferences.apiVersion: Invalid value: "": version must not be empty']),
    ],
)  # fmt: skip
def test_the_rules_of_metadata(meta: dict[str, Any], expected: list[str]) -> None:
    assert create_errors("configmaps", _with_meta(**meta)) == expected


def test_two_controllers_are_one_too_many() -> None:
    owners = [{**OWNER, "controller": True}, {**OWNER, "name": "db", "controller": True}]
    (error,) = create_errors("configmaps", _with_meta(ownerReferences=owners))
    assert error.endswith(
        'Only one reference can have Controller set to true. Found "true" in references for ReplicaSet/web '
        "and ReplicaSet/db"
    )


def test_the_sentence_that_a_user_reads() -> None:
    _, errors = create("configmaps", _with_meta(name="", labels={"a": "-"}))
    body = invalid("", "ConfigMap", "", errors).status()
    assert body["code"] == 422
    assert body["message"].startswith(
        'ConfigMap "" is invalid: [metadata.name: Required value: name or generateName is required, '
        'metadata.labels: Invalid value: "-": a valid label must be'
    )
    assert [cause["field"] for cause in body["details"]["causes"]] == ["metadata.name", "metadata.labels"]


def test_an_update_carries_what_the_client_left_out() -> None:
    old = created_ok("deployments", deployment())
    new, errors = update("deployments", old, lambda obj: obj.__setitem__("metadata", {"name": "web"}))
    assert errors == []
    assert new["metadata"] == old["metadata"]


@pytest.mark.parametrize("field", ["uid", "creationTimestamp", "deletionTimestamp", "name"])
def test_what_the_server_set_stays(field: str) -> None:
    old = created_ok("configmaps", CONFIG)
    other = "2020-01-01T00:00:00Z" if "Timestamp" in field else "other"
    _, errors = update("configmaps", old, lambda obj: obj["metadata"].__setitem__(field, other))
    assert errors == [f'metadata.{field}: Invalid value: "{other}": field is immutable']


def test_generation_moves_with_the_spec_only() -> None:
    old = created_ok("deployments", deployment())
    same, _ = update("deployments", old, lambda obj: obj["metadata"].__setitem__("labels", {"a": "b"}))
    assert same["metadata"]["generation"] == 1
    scaled, _ = update("deployments", old, lambda obj: obj["spec"].__setitem__("replicas", 3))
    assert scaled["metadata"]["generation"] == 2
    noted, _ = update("deployments", old, lambda obj: obj["metadata"].__setitem__("annotations", {"a": "b"}))
    assert noted["metadata"]["generation"] == 2
    cheat, _ = update("deployments", old, lambda obj: obj["metadata"].__setitem__("generation", 9))
    assert cheat["metadata"]["generation"] == 1


def test_a_write_to_the_object_keeps_its_status_and_the_reverse() -> None:
    kind = resource("deployments")
    old = {**created_ok("deployments", deployment()), "status": {"replicas": 3}}
    new = copy_json(old)
    new["status"], new["spec"]["replicas"] = {"replicas": 9}, 5
    main, status = copy_json(new), copy_json(new)
    prepare_update(main, old, kind)
    assert (main["spec"]["replicas"], main["status"]) == (5, {"replicas": 3})
    status["metadata"]["labels"] = {"a": "b"}
    prepare_update(status, old, kind, subresource="status")
    assert (status["spec"]["replicas"], status["status"]) == (1, {"replicas": 9})
    assert status["metadata"] == old["metadata"]


def test_a_status_is_not_given_at_birth() -> None:
    stored = created_ok("deployments", {**deployment(), "status": {"replicas": 9}})
    assert stored["status"] == {}


def test_an_object_on_its_way_out_takes_no_new_finalizers() -> None:
    old = created_ok("configmaps", {"metadata": {"name": "settings", "finalizers": ["example.com/a"]}})
    old["metadata"]["deletionTimestamp"] = CREATED
    _, errors = update("configmaps", old, lambda obj: obj["metadata"]["finalizers"].append("example.com/b"))
    assert errors == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers []string{"example.com/b"}'
    ]
    _, errors = update("configmaps", old, lambda obj: obj["metadata"]["finalizers"].clear())
    assert errors == []
