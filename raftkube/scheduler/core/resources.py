"""Amounts of resources as whole numbers: cpu in milli-CPU, all others in whole units (bytes, pods, devices).

Source: k8s.io/component-helpers/resource/helpers.go (PodRequests), pkg/scheduler/util/pod_resources.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from raftkube.api.quantity import quantity

Amounts = dict[str, int]

# What a container without requests counts as when nodes are compared (never when it is decided whether
# it fits), so that pods without requests spread too.
NONZERO_DEFAULTS: Final[Mapping[str, int]] = {"cpu": 100, "memory": 200 * 1024 * 1024}


def amounts(quantities: Mapping[str, Any] | None) -> Amounts:
    """Of a requests, limits, overhead or allocatable field. Raises QuantityError."""
    return {
        name: quantity(value).milli if name == "cpu" else quantity(value).value
        for name, value in (quantities or {}).items()
    }


def add(left: Amounts, right: Mapping[str, int]) -> Amounts:
    """The sum, by resource."""
    return {name: left.get(name, 0) + right.get(name, 0) for name in left.keys() | right.keys()}


def largest(left: Amounts, right: Mapping[str, int]) -> Amounts:
    """The larger of both, by resource."""
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in left.keys() | right.keys()}


def pod_requests(spec: Mapping[str, Any], defaults: Mapping[str, int] | None = None) -> Amounts:
    """What a pod needs: the larger of what its containers need together and what each step of its
    initialization needs, plus overhead. Init containers that go on (restartPolicy Always) count among
    the containers, and in every later step. defaults: for containers that do not say."""
    running: Amounts = {}
    for container in spec.get("containers") or ():
        running = add(running, _container(container, defaults))
    sidecars: Amounts = {}
    initializing: Amounts = {}
    for container in spec.get("initContainers") or ():
        need = _container(container, defaults)
        if container.get("restartPolicy") == "Always":
            sidecars = add(sidecars, need)
            initializing = largest(initializing, sidecars)
        else:
            initializing = largest(initializing, add(need, sidecars))
    needed = largest(add(running, sidecars), initializing)
    return add(needed, amounts(spec.get("overhead")))


def _container(container: Mapping[str, Any], defaults: Mapping[str, int] | None) -> Amounts:
    requested = amounts((container.get("resources") or {}).get("requests"))
    return {**(defaults or {}), **requested}
