"""The Node object: what a kubelet says of itself. Source: pkg/kubelet/nodestatus/setters.go."""

from __future__ import annotations

from typing import Final, NamedTuple

from raftkube.api.quantity import canonical
from raftkube.api.timestamps import rfc3339
from raftkube.kubelet.core.pods import Object
from raftkube.version import KUBERNETES_VERSION, VERSION

LEASE_NAMESPACE: Final = "kube-node-lease"
LEASE_DURATION_S: Final = 40
KUBELET_VERSION: Final = f"v{KUBERNETES_VERSION}+raftkube"


class Machine(NamedTuple):
    """What this machine is; memory and disk in bytes, ids as the system has them."""

    cpus: int
    memory_bytes: int
    disk_bytes: int
    architecture: str  # Go's names: amd64, arm64
    kernel: str
    os_image: str
    machine_id: str
    boot_id: str


class NodeSpec(NamedTuple):
    """One node of this process. `runtime` is a container runtime's scheme."""

    name: str
    address: str
    port: int
    runtime: str
    machine: Machine
    pods_max: int = 110
    labels: tuple[tuple[str, str], ...] = ()


def make_node(spec: NodeSpec, now: float) -> Object:
    """The Node to register."""
    arch = spec.machine.architecture
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": arch,
        **dict(spec.labels),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": labels},
        "spec": {},
        "status": node_status(spec, {}, now),
    }


def node_status(spec: NodeSpec, old: Object, now: float) -> Object:
    """The whole status; transition times of conditions that did not change are kept.

    Amounts are written as the API server stores them: else an unchanged status would look changed for ever.
    """
    machine = spec.machine
    resources = {
        "cpu": str(machine.cpus),
        "memory": canonical(f"{machine.memory_bytes // 1024}Ki"),
        "ephemeral-storage": canonical(f"{machine.disk_bytes // 1024}Ki"),
        "pods": str(spec.pods_max),
    }
    return {
        "capacity": resources,
        "allocatable": dict(resources),
        "conditions": _conditions(old, now),
        "addresses": [
            {"type": "InternalIP", "address": spec.address},
            {"type": "Hostname", "address": spec.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": spec.port}},
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.machine_id,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": f"{spec.runtime}://{VERSION}",
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": machine.architecture,
        },
    }


def is_due(spec: NodeSpec, node: Object, now: float, last_written: float, report_every_s: float) -> bool:
    """Whether the status must be written: somebody changed it (the node lifecycle controller says Unknown
    after silence), or it is old."""
    if now - last_written >= report_every_s:
        return True
    status = node.get("status") or {}
    wanted = node_status(spec, status, now)
    told = {c["type"]: c.get("status") for c in status.get("conditions") or ()}
    if any(told.get(c["type"]) != c["status"] for c in wanted["conditions"]):
        return True
    return any(status.get(name) != wanted[name] for name in ("capacity", "addresses", "daemonEndpoints"))


def make_lease(name: str, old: Object | None, node_uid: str, now: float) -> Object:
    """The node's Lease, renewed at `now`."""
    if old is not None:
        spec = (old.get("spec") or {}) | {"renewTime": rfc3339(now, micros=True), "holderIdentity": name}
        return old | {"spec": spec | {"leaseDurationSeconds": LEASE_DURATION_S}}
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_DURATION_S,
            "renewTime": rfc3339(now, micros=True),
        },
    }


_CONDITIONS: Final = (
    ("MemoryPressure", False, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", False, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", False, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", True, "KubeletReady", "kubelet is posting ready status"),
)


def _conditions(old: Object, now: float) -> list[Object]:
    before = {condition["type"]: condition for condition in old.get("conditions") or ()}
    made = []
    for kind, holds, reason, message in _CONDITIONS:
        status, was = str(holds), before.get(kind) or {}
        since = was.get("lastTransitionTime") if was.get("status") == status else None
        made.append(
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": rfc3339(now),
                "lastTransitionTime": since or rfc3339(now),
                "reason": reason,
                "message": message,
            }
        )
    return made
