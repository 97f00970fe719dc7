"""What every handler works with: the server's parts, and one request's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raftkube.api.registry import Catalog
from raftkube.api.resource import Resource
from raftkube.apiserver.cache import WatchCache
from raftkube.apiserver.core.authorization import User
from raftkube.apiserver.core.query import Params
from raftkube.apiserver.core.request_info import RequestInfo
from raftkube.apiserver.fencing import Fences
from raftkube.apiserver.kubelet_proxy import KubeletClients
from raftkube.apiserver.object_store import ObjectStore
from raftkube.apiserver.service_allocation import ServiceAllocations
from raftkube.apiserver.storage import Storage
from raftkube.apiserver.transaction import Guard
from raftkube.clock import Clock
from raftkube.net.http import Request
from raftkube.rng import Rng


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one API server."""

    catalog: Catalog
    storage: Storage
    cache: WatchCache
    store: ObjectStore
    fences: Fences
    allocations: ServiceAllocations
    kubelets: KubeletClients
    clock: Clock
    rng: Rng


@dataclass(frozen=True, slots=True)
class Call:
    """One authorized request for a resource."""

    parts: Parts
    request: Request
    info: RequestInfo
    resource: Resource
    user: User
    params: Params

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's, names in lower case."""
        return self.request.headers

    def guard(self, *, dry_run: bool = False, created: str = "") -> Guard:
        """What every transaction of this request must check. created: the name in a create's body.

        Raises ApiError: a control identity sent no good fencing token.
        """
        fence = self.parts.fences.of(self.user, self.info, self.headers, created=created)
        return Guard((fence.check(),) if fence else (), dry_run, self.request.client_gone)
