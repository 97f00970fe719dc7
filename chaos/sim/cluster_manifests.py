"""The objects that users of a simulated cluster make."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]
_LEAVES_S: Final = 5  # how long a pod stays on a node that is lost


def pod_template(app: str, image: str, **annotations: str) -> Json:
    """A pod template. annotations: of the fake runtime, without their prefix, as `run_seconds`."""
    stays = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _LEAVES_S}
    tolerations = [{"key": f"node.kubernetes.io/{why}", **stays} for why in ("not-ready", "unreachable")]
    requests = {"cpu": "100m", "memory": "64Mi"}
    container = {"name": "main", "image": image, "resources": {"requests": requests}}
    metadata: Json = {"labels": {"app": app}}
    if annotations:
        named = {f"raftkube.dev/fake-{key.replace('_', '-')}": text for key, text in annotations.items()}
        metadata["annotations"] = named
    return {"metadata": metadata, "spec": {"containers": [container], "tolerations": tolerations}}


def deployment(namespace: str, name: str, replicas: int, image: str, *, recreate: bool = False) -> Json:
    """Pods are labelled with its name."""
    spec: Json = {**_spec(name, replicas, image), "revisionHistoryLimit": 2}
    if recreate:
        spec["strategy"] = {"type": "Recreate"}
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def replica_set(namespace: str, name: str, replicas: int) -> Json:
    """One that nobody controls."""
    metadata = {"namespace": namespace, "name": name}
    spec = _spec(name, replicas, "v1")
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec}


def _spec(name: str, replicas: int, image: str) -> Json:
    selector = {"matchLabels": {"app": name}}
    return {"replicas": replicas, "selector": selector, "template": pod_template(name, image)}


def ending_pod(namespace: str, name: str, *, run_s: int, exit_code: str) -> Json:
    """A pod that nobody controls and that ends after `run_s` seconds."""
    body = pod_template(name, "v1", run_seconds=str(run_s), exit_code=exit_code)
    body |= {"apiVersion": "v1", "kind": "Pod"}
    body["metadata"] |= {"namespace": namespace, "name": name}
    body["spec"]["restartPolicy"] = "Never"
    return body
