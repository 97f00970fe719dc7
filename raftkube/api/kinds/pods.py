"""Pod."""

from __future__ import annotations

from raftkube.api.field_selectors import flag_at, text_at
from raftkube.api.objects import child, items, section
from raftkube.api.podspec.defaults import admit_pod, default_pod
from raftkube.api.podspec.status import pod_cells, qos_class
from raftkube.api.podspec.update import validate_pod_update
from raftkube.api.podspec.validation import validate_pod
from raftkube.api.resource import Column, Object, Resource, Strategy, Subresource
from raftkube.api.tables import AGE, NAME
from raftkube.api.workloads import status_subresource


def _prepare_create(pod: Object) -> None:
    spec = child(pod, "spec")
    admit_pod(spec)
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
    if items(spec, "schedulingGates"):
        pod["status"]["conditions"] = [{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": None, "lastTransitionTime": None,
        }]  # fmt: skip


def _prepare_status_update(new: Object, old: Object) -> None:
    """The QoS class is decided once, at creation."""
    qos = section(old, "status").get("qosClass")
    if qos:
        child(new, "status")["qosClass"] = qos


def _grace_period_s(pod: Object) -> int:
    return int(section(pod, "spec").get("terminationGracePeriodSeconds") or 0)


def _deletes_at_once(pod: Object) -> bool:
    """Nobody runs it: not yet, or no more."""
    return not section(pod, "spec").get("nodeName") or section(pod, "status").get("phase") in (
        "Succeeded",
        "Failed",
    )


def _pod_ips(pod: Object) -> str:
    return ",".join(item.get("ip", "") for item in items(section(pod, "status"), "podIPs"))


RESOURCE = Resource(
    group="", version="v1", kind="Pod", plural="pods", singular="pod",
    namespaced=True, schema="io.k8s.api.core.v1.Pod", short_names=("po",), categories=("all",),
    subresources=(
        Subresource("binding", "Binding", ("create",), "", "v1"),
        Subresource("ephemeralcontainers", "Pod", ("get",)),
        Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
        Subresource("log", "Pod", ("get",)),
        status_subresource("Pod"),
    ),
    columns=(
        NAME,
        Column("Ready", description="The aggregate readiness state of this pod for accepting traffic."),
        Column("Status", description="The aggregate status of the containers in this pod."),
        Column(
            "Restarts",
            description="The number of times the containers in this pod have been restarted and "
            "when the last container in this pod has restarted.",
        ),
        AGE,
        Column(
            "IP",
            description="podIP address allocated to the pod. Routable at least within the "
            "cluster. Empty if not yet allocated.", priority=1,
        ),
        Column("Node", description="NodeName indicates in which node this pod is scheduled.", priority=1),
        Column(
            "Nominated Node",
            description="nominatedNodeName is set only when this pod preempts other pods on the "
            "node, but it cannot be scheduled right away.", priority=1,
        ),
        Column(
            "Readiness Gates",
            description="If specified, all readiness gates will be evaluated for pod readiness.",
            priority=1,
        ),
    ),
    row=pod_cells,
    field_selectors={
        "spec.nodeName": text_at("spec", "nodeName"),
        "spec.restartPolicy": text_at("spec", "restartPolicy"),
        "spec.schedulerName": text_at("spec", "schedulerName"),
        "spec.serviceAccountName": text_at("spec", "serviceAccountName"),
        "spec.hostNetwork": flag_at("spec", "hostNetwork"),
        "status.phase": text_at("status", "phase"),
        "status.podIP": text_at("status", "podIP"),
        "status.podIPs": _pod_ips,
        "status.nominatedNodeName": text_at("status", "nominatedNodeName"),
    },
    strategy=Strategy(
        default=default_pod, prepare_create=_prepare_create, prepare_status_update=_prepare_status_update,
        validate=validate_pod, validate_update=validate_pod_update, generation=True,
        default_grace_period_s=_grace_period_s, deletes_at_once=_deletes_at_once,
    ),
)  # fmt: skip
