"""What a Service is given beside what it asks for: a cluster address and node ports, both unique."""

from __future__ import annotations

from dataclasses import dataclass

from raftkube.api.resource import Object, Resource
from raftkube.api.status import FieldError
from raftkube.apiserver.node_ports import NodePorts
from raftkube.apiserver.service_ips import ServiceAddresses, cluster_ip
from raftkube.apiserver.transaction import Check, Write


def is_service(resource: Resource) -> bool:
    """Whether the resource is the one that is allocated for."""
    return (resource.group, resource.plural) == ("", "services")


@dataclass(frozen=True, slots=True)
class ServiceAllocations:
    """Both allocators as one."""

    addresses: ServiceAddresses
    ports: NodePorts

    def check(self, service: Object) -> list[FieldError]:
        """Whether what a client asked for lies in the ranges."""
        return [*self.addresses.check(service), *self.ports.check(service)]

    def allocate(
        self, service: Object, old: Object | None = None
    ) -> tuple[tuple[Check, ...], tuple[Write, ...]]:
        """Complete a valid Service in place; what goes into the transaction that turns `old` into it.

        Raises ApiError 503: a range is full.
        """
        chosen_address, chosen_ports = self.addresses.assign(service), self.ports.assign(service)
        checks, writes = self.ports.claim(service, old, chosen_ports)
        before = cluster_ip(old) if old is not None else ""
        if old is not None and before != cluster_ip(service):
            writes = (*writes, *self.addresses.release(old))
        if before != cluster_ip(service):
            claimed, puts = self.addresses.claim(service, chosen=chosen_address)
            checks, writes = (*checks, *claimed), (*writes, *puts)
        return checks, writes

    def release(self, service: Object) -> tuple[Write, ...]:
        """What goes into the transaction that removes a Service."""
        return (*self.addresses.release(service), *self.ports.release(service))
