"""Every credential of a cluster, each component's own and no more.

Two authorities: the store's certificates open the store's ports, Kubernetes' open the API. Only API
servers and the operator's `store-admin` hold a store certificate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from raftkube.clock import Clock
from raftkube.cluster.certificates import (
    STORE_ADMIN,
    STORE_CLIENT,
    STORE_METRICS,
    STORE_PEER,
    Authority,
    Issued,
)
from raftkube.cluster.plan import HOST, Component, Plan, kubelet_node
from raftkube.cluster.state import ClusterState

_LOCAL: Final = ("localhost", HOST)
# Names by which pods and people reach the API (10.96.0.1 is the first address of the service range).
_API_HOSTS: Final = (
    *_LOCAL, "10.96.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)  # fmt: skip
ADMIN: Final = "kubernetes-admin"


class Pki:
    """Issues what is missing; what is there is kept, so that a restart changes nothing."""

    def __init__(self, state: ClusterState, clock: Clock) -> None:
        self._directory = state.pki
        self._store = _authority(state.pki, "store-ca", "raftkube-store-ca", clock)
        self._kubernetes = _authority(state.pki, "ca", "kubernetes", clock)

    def issue_all(self, plan: Plan) -> None:
        """Certificates for every component of `plan`, the operator and the store's operator."""
        for component in plan.components:
            self._component(component)
        self._keep("store-admin", self._store, "store-admin", (STORE_ADMIN,))
        self._keep("store-metrics", self._store, "store-metrics", (STORE_METRICS,))
        if plan.of_kind("apiserver"):
            self._keep("admin", self._kubernetes, ADMIN, ("system:masters",))
            self._keep(
                "apiserver-kubelet-client",
                self._kubernetes,
                "kube-apiserver-kubelet-client",
                ("system:masters",),
            )

    def paths(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of `name`."""
        return self._directory / f"{name}.crt", self._directory / f"{name}.key"

    def _component(self, component: Component) -> None:
        name = component.name
        if component.kind == "store":
            self._keep(name, self._store, name, (STORE_PEER,), (name, *_LOCAL), server=True)
        elif component.kind == "apiserver":
            self._keep(f"{name}-store-client", self._store, name, (STORE_CLIENT,))
            self._keep(name, self._kubernetes, "kube-apiserver", (), _API_HOSTS, server=True, client=False)
        elif component.kind in ("scheduler", "controller-manager"):
            self._keep(name, self._kubernetes, f"system:kube-{component.kind}")
        elif component.kind == "kubelet":
            node = kubelet_node(name)
            self._keep(name, self._kubernetes, f"system:node:{node}", ("system:nodes",))
            self._keep(
                f"{name}-server", self._kubernetes, node, (), (node, *_LOCAL), server=True, client=False
            )

    def _keep(
        self,
        file_name: str,
        authority: Authority,
        common_name: str,
        organizations: tuple[str, ...] = (),
        hosts: tuple[str, ...] = (),
        *,
        server: bool = False,
        client: bool = True,
    ) -> None:
        if all(path.exists() for path in self.paths(file_name)):
            return
        issued: Issued = authority.issue(
            common_name, organizations=organizations, hosts=hosts, server=server, client=client
        )
        issued.write(self._directory, file_name)


def _authority(directory: Path, name: str, common_name: str, clock: Clock) -> Authority:
    if (directory / f"{name}.crt").exists():
        return Authority.load(directory, name, clock)
    authority = Authority.create(common_name, clock)
    authority.write(directory, name)
    return authority
