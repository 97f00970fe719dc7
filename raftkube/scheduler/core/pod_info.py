"""A pod as the scheduler needs it, worked out once from its object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from raftkube.scheduler.core.resources import NONZERO_DEFAULTS, Amounts, pod_requests

Object = dict[str, Any]
DEFAULT_SCHEDULER: Final = "default-scheduler"
_FINISHED: Final = ("Succeeded", "Failed")
_ANY_ADDRESS: Final = "0.0.0.0"


class HostPort(NamedTuple):
    """A port of the node that a container takes."""

    address: str
    protocol: str
    port: int

    def conflicts(self, other: HostPort) -> bool:
        """Whether both cannot be taken on one node."""
        same = (self.protocol, self.port) == (other.protocol, other.port)
        return same and (self.address == other.address or _ANY_ADDRESS in (self.address, other.address))


@dataclass(frozen=True, slots=True)
class PodInfo:
    """`obj` is the object; the rest is made of it. `spread_key` names the pods that should be apart: those
    of one controller."""

    key: str
    uid: str
    obj: Object
    priority: int
    created_at: str
    requests: Amounts
    nonzero_requests: Amounts
    host_ports: tuple[HostPort, ...]
    spread_key: str
    node_name: str

    @classmethod
    def of(cls, obj: Object) -> PodInfo:
        """Raises QuantityError: a request that is no quantity."""
        metadata, spec = obj["metadata"], obj["spec"]
        return cls(
            key=f"{metadata['namespace']}/{metadata['name']}",
            uid=metadata["uid"],
            obj=obj,
            priority=int(spec.get("priority") or 0),
            created_at=str(metadata.get("creationTimestamp") or ""),
            requests=pod_requests(spec),
            nonzero_requests=pod_requests(spec, NONZERO_DEFAULTS),
            host_ports=_host_ports(spec),
            spread_key=_spread_key(metadata),
            node_name=str(spec.get("nodeName") or ""),
        )

    @property
    def spec(self) -> Mapping[str, Any]:
        """The pod's spec."""
        spec: Mapping[str, Any] = self.obj["spec"]
        return spec


def is_finished(obj: Object) -> bool:
    """Whether its containers have ended for good: it needs nothing any more."""
    return (obj.get("status") or {}).get("phase") in _FINISHED


def wants_scheduling(obj: Object, scheduler_name: str = DEFAULT_SCHEDULER) -> bool:
    """Whether this scheduler has to find a node for it."""
    spec = obj["spec"]
    return (
        not spec.get("nodeName")
        and not spec.get("schedulingGates")
        and not obj["metadata"].get("deletionTimestamp")
        and not is_finished(obj)
        and (spec.get("schedulerName") or DEFAULT_SCHEDULER) == scheduler_name
    )


def _host_ports(spec: Mapping[str, Any]) -> tuple[HostPort, ...]:
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return tuple(
        HostPort(port.get("hostIP") or _ANY_ADDRESS, port.get("protocol") or "TCP", int(port["hostPort"]))
        for container in containers
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def _spread_key(metadata: Mapping[str, Any]) -> str:
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            return str(owner["uid"])
    return ""
