"""Addresses of Services, unique over all API servers: each is a key of the store, written in the same
transaction as the Service that has it.

Source: pkg/registry/core/service/ipallocator.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from raftkube.api import fields
from raftkube.api.objects import section
from raftkube.api.resource import Object
from raftkube.api.services import needs_cluster_ip, set_cluster_ip
from raftkube.api.status import ApiError, FieldError, invalid, unavailable
from raftkube.apiserver.cache import ResourceCache
from raftkube.apiserver.stored import Stored
from raftkube.apiserver.transaction import Check, Write
from raftkube.errors import ConfigError
from raftkube.rng import Rng
from raftkube.wire.store import Compare, DeleteRange, KeyValue, Put

_PREFIX: Final = "/registry/ranges/serviceips/"
_ATTEMPTS: Final = 64
HEADLESS: Final = "None"


class ServiceAddresses:
    """Chooses and claims addresses of one range; the cache of Services tells which are likely free."""

    def __init__(self, cidr: str, services: ResourceCache, rng: Rng) -> None:
        try:
            self._network = ipaddress.IPv4Network(cidr)
        except ValueError as error:
            raise ConfigError(f"--service-cluster-ip-range {cidr!r} is no IPv4 range: {error}") from error
        if self._network.num_addresses < 8:
            raise ConfigError(f"--service-cluster-ip-range {cidr!r} must hold at least 8 addresses")
        self._used: set[str] = set()
        self._rng = rng
        services.listeners.append(self._service_changed)

    @property
    def first(self) -> str:
        """The address of the `kubernetes` Service."""
        return str(self._network[1])

    def choose(self) -> str:
        """An address that is probably free. Raises ApiError 503: none was found."""
        for _ in range(_ATTEMPTS):
            address = str(self._network[self._rng.randrange(2, self._network.num_addresses - 1)])
            if address not in self._used:
                return address
        for host in self._network.hosts():
            if str(host) not in self._used and str(host) != self.first:
                return str(host)
        raise unavailable("the range of Service addresses is full; delete Services or widen the range")

    def assign(self, service: Object) -> bool:
        """Give a Service that needs one an address, in place; whether it did."""
        if not needs_cluster_ip(service):
            return False
        set_cluster_ip(service, self.choose())
        return True

    def check(self, service: Object) -> list[FieldError]:
        """Whether the address that a client asked for lies in the range."""
        address = cluster_ip(service)
        if not address:
            return []
        try:
            if ipaddress.IPv4Address(address) in self._network:
                return []
        except ValueError:
            pass
        text = f"failed to allocate IP {address}: the provided IP is not in the valid range {self._network}"
        return [fields.invalid("spec.clusterIPs", [address], text)]

    def claim(self, service: Object, *, chosen: bool) -> tuple[tuple[Check, ...], tuple[Write, ...]]:
        """What goes into the transaction that stores it. chosen: by us, so another one may be tried."""
        address = cluster_ip(service)
        if not address:
            return (), ()
        key = (_PREFIX + address).encode()
        owner = f"{service['metadata'].get('namespace', '')}/{service['metadata']['name']}"

        def refuse(found: KeyValue | None) -> ApiError | None:
            self._used.add(address)
            return None if chosen else _taken(service, address)

        return (Check(Compare(key, "mod", "=", 0), refuse),), (Put(key, owner.encode()),)

    def release(self, service: Object) -> tuple[Write, ...]:
        """What goes into the transaction that removes it."""
        address = cluster_ip(service)
        return (DeleteRange((_PREFIX + address).encode()),) if address else ()

    def _service_changed(self, old: Stored | None, new: Stored | None) -> None:
        if old is not None and (address := cluster_ip(old.obj)):
            self._used.discard(address)
        if new is not None and (address := cluster_ip(new.obj)):
            self._used.add(address)


def cluster_ip(service: Object) -> str:
    """The allocated address; "" for headless ones and external names."""
    spec = section(service, "spec")
    address = spec.get("clusterIP") or ""
    return "" if address == HEADLESS or spec.get("type") == "ExternalName" else str(address)


def _taken(service: Object, address: str) -> ApiError:
    text = f"failed to allocate IP {address}: provided IP is already allocated"
    error = fields.invalid("spec.clusterIPs", [address], text)
    return invalid("", "Service", service["metadata"].get("name", ""), [error])
