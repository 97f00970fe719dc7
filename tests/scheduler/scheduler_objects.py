"""Pods and nodes for the scheduler's tests."""

from __future__ import annotations

from typing import Any

from raftkube.scheduler.core.pod_info import PodInfo

Object = dict[str, Any]


def pod(name: str, *, cpu: str = "", memory: str = "", owner: str = "", **spec: Any) -> Object:
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    metadata: Object = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    if owner:
        metadata["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}
        ]
    container = {"name": "c", "image": "i", "resources": {"requests": requests}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], "schedulerName": "default-scheduler"} | spec,
        "status": {"phase": "Pending"},
    }


def info(name: str, **fields: Any) -> PodInfo:
    return PodInfo.of(pod(name, **fields))


def node(name: str, *, cpu: str = "4", memory: str = "8Gi", pods: str = "110", **more: Any) -> Object:
    """more: labels, taints, unschedulable, extended (resources)."""
    allocatable = {"cpu": cpu, "memory": memory, "pods": pods} | more.get("extended", {})
    spec = {key: more[key] for key in ("taints", "unschedulable") if key in more}
    labels = {"kubernetes.io/hostname": name} | more.get("labels", {})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": labels},
        "spec": spec,
        "status": {"allocatable": allocatable},
    }
