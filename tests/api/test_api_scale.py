from __future__ import annotations

import pytest
from api_samples import CREATED, created_ok, deployment

from raftkube.api.scale import scale_of, validate_scale, with_scale
from raftkube.api.status import ApiError


def test_a_scale_and_back() -> None:
    stored = created_ok("deployments", deployment(replicas=3))
    stored["metadata"]["resourceVersion"] = "7"
    stored["status"] = {"replicas": 2}
    scale = scale_of(stored)
    assert scale == {
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": "web", "namespace": "default", "uid": "uid-1", "resourceVersion": "7",
                     "creationTimestamp": CREATED},
        "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "app=web"},
    }  # fmt: skip
    scaled = with_scale(stored, {**scale, "spec": {"replicas": 5}})
    assert scaled["spec"]["replicas"] == 5
    assert stored["spec"]["replicas"] == 3
    assert scaled["spec"]["template"] is stored["spec"]["template"]


def test_preconditions_of_a_scale_reach_the_object() -> None:
    stored = created_ok("deployments", deployment())
    stored["metadata"]["resourceVersion"] = "7"
    old = with_scale(stored, {"metadata": {"name": "web", "resourceVersion": "6"}, "spec": {}})
    assert (old["metadata"]["resourceVersion"], old["spec"]["replicas"]) == ("6", 0)
    assert with_scale(stored, {"spec": {"replicas": 1}})["metadata"]["resourceVersion"] == "7"


def test_wrong_scales() -> None:
    stored = created_ok("deployments", deployment())
    with pytest.raises(ApiError, match="does not match the name on the URL"):
        with_scale(stored, {"metadata": {"name": "db"}, "spec": {"replicas": 1}})
    with pytest.raises(ApiError, match=r"spec\.replicas must be an integer"):
        with_scale(stored, {"spec": {"replicas": "many"}})
    assert [str(error) for error in validate_scale({"spec": {"replicas": -1}})] == [
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    ]
