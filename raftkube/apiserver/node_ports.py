"""Node ports of Services, unique over all API servers: each is a key of the store, written in the same
transaction as the Service that has it.

Source: pkg/registry/core/service/portallocator, pkg/registry/core/service/storage/alloc.go.
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.objects import items, section
from raftkube.api.resource import Object
from raftkube.api.status import ApiError, FieldError, invalid, unavailable
from raftkube.apiserver.cache import ResourceCache
from raftkube.apiserver.stored import Stored
from raftkube.apiserver.transaction import Check, Write
from raftkube.rng import Rng
from raftkube.wire.store import Compare, DeleteRange, KeyValue, Put

PORT_MIN: Final = 30_000
PORT_MAX: Final = 32_767
# Left to those who ask for a certain port, as long as there are others (KEP-3668).
_ASKED_FOR_BAND: Final = 86
_PREFIX: Final = "/registry/ranges/servicenodeports/"
_ATTEMPTS: Final = 64


class NodePorts:
    """Chooses and claims node ports; the cache of Services tells which are likely free."""

    def __init__(self, services: ResourceCache, rng: Rng) -> None:
        self._used: set[int] = set()
        self._rng = rng
        services.listeners.append(self._service_changed)

    def assign(self, service: Object) -> frozenset[int]:
        """Give every port that needs one a node port, in place; those that were chosen here.

        One number serves TCP and UDP of the same port. Raises ApiError 503: none is free.
        """
        if not _needs_node_ports(section(service, "spec")):
            return frozenset()
        ports = items(section(service, "spec"), "ports")
        taken = set(node_ports(service))
        siblings = {port.get("port"): port["nodePort"] for port in ports if port.get("nodePort")}
        protocols = {(port.get("protocol"), port.get("nodePort")) for port in ports}
        chosen = set()
        for port in ports:
            if port.get("nodePort"):
                continue
            number = siblings.get(port.get("port"))
            if number is None or (port.get("protocol"), number) in protocols:
                number = self._choose(taken)
                chosen.add(number)
            port["nodePort"] = siblings[port.get("port")] = number
            taken.add(number)
            protocols.add((port.get("protocol"), number))
        return frozenset(chosen)

    def _choose(self, taken: set[int]) -> int:
        for _ in range(_ATTEMPTS):
            number = self._rng.randrange(PORT_MIN + _ASKED_FOR_BAND, PORT_MAX + 1)
            if number not in self._used and number not in taken:
                return number
        for number in range(PORT_MAX, PORT_MIN - 1, -1):
            if number not in self._used and number not in taken:
                return number
        raise unavailable("all node ports are allocated; delete Services of type NodePort or LoadBalancer")

    def check(self, service: Object) -> list[FieldError]:
        """Whether the ports that a client asked for lie in the range."""
        text = f"provided port is not in the valid range. The range of valid ports is {PORT_MIN}-{PORT_MAX}"
        return [
            fields.invalid(f"spec.ports[{index}].nodePort", port["nodePort"], text)
            for index, port in enumerate(items(section(service, "spec"), "ports"))
            if port.get("nodePort") and not PORT_MIN <= port["nodePort"] <= PORT_MAX
        ]

    def claim(
        self, service: Object, old: Object | None, chosen: frozenset[int]
    ) -> tuple[tuple[Check, ...], tuple[Write, ...]]:
        """What goes into the transaction that turns `old` (None: nothing) into `service`."""
        before, after = set(node_ports(old or {})), node_ports(service)
        owner = f"{service['metadata'].get('namespace', '')}/{service['metadata']['name']}".encode()
        added = [number for number in after if number not in before]
        checks = tuple(self._free(service, number, number in chosen) for number in added)
        puts = tuple(Put(_key(number), owner) for number in added)
        return checks, (*puts, *(DeleteRange(_key(number)) for number in sorted(before - set(after))))

    def _free(self, service: Object, number: int, chosen: bool) -> Check:
        def refuse(found: KeyValue | None) -> ApiError | None:
            self._used.add(number)
            return None if chosen else _taken(service, number)

        return Check(Compare(_key(number), "mod", "=", 0), refuse)

    def release(self, service: Object) -> tuple[Write, ...]:
        """What goes into the transaction that removes it."""
        return tuple(DeleteRange(_key(number)) for number in node_ports(service))

    def _service_changed(self, old: Stored | None, new: Stored | None) -> None:
        if old is not None:
            self._used.difference_update(node_ports(old.obj))
        if new is not None:
            self._used.update(node_ports(new.obj))


def node_ports(service: Object) -> list[int]:
    """The node ports that a Service has, each once, in order."""
    ports = items(section(service, "spec"), "ports")
    return list(dict.fromkeys(port["nodePort"] for port in ports if port.get("nodePort")))


def _needs_node_ports(spec: dict[str, Any]) -> bool:
    if spec.get("type") == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort"


def _key(number: int) -> bytes:
    return f"{_PREFIX}{number}".encode()


def _taken(service: Object, number: int) -> ApiError:
    ports = items(section(service, "spec"), "ports")
    index = next(at for at, port in enumerate(ports) if port.get("nodePort") == number)
    error = fields.invalid(f"spec.ports[{index}].nodePort", number, "provided port is already allocated")
    return invalid("", "Service", service["metadata"].get("name", ""), [error])
