"""How the API server reaches kubelets: over HTTPS, with its own client certificate.

Source: pkg/kubelet/client/kubelet_client.go (which address and port of a Node).
"""

from __future__ import annotations

from typing import Final

from raftkube.api.objects import items, section
from raftkube.api.resource import Object
from raftkube.api.status import unavailable
from raftkube.net import Address, Network, TlsFiles
from raftkube.net.http_client import HttpClient

_ADDRESS_TYPES: Final = ("InternalIP", "Hostname", "ExternalIP")
_PORT: Final = 10250
_CLIENTS_MAX: Final = 1_000


class KubeletClients:
    """One HTTP client per kubelet address."""

    def __init__(self, network: Network, tls: TlsFiles | None) -> None:
        self._network = network
        self._tls = tls
        self._clients: dict[Address, HttpClient] = {}

    def of(self, node: Object) -> HttpClient:
        """The client of a Node's kubelet. Raises ApiError 503: the Node has no address yet."""
        address = kubelet_address(node)
        client = self._clients.get(address)
        if client is None:
            if len(self._clients) >= _CLIENTS_MAX:
                self._clients.clear()  # idle connections are closed with their clients
            client = self._clients[address] = HttpClient(self._network, address, self._tls)
        return client


def kubelet_address(node: Object) -> Address:
    """Where a Node's kubelet listens. Raises ApiError 503."""
    status = section(node, "status")
    found = {item.get("type"): item.get("address") for item in items(status, "addresses")}
    port = section(section(status, "daemonEndpoints"), "kubeletEndpoint").get("Port") or _PORT
    for kind in _ADDRESS_TYPES:
        if found.get(kind):
            return Address(str(found[kind]), int(port))
    raise unavailable(f"node {node['metadata']['name']} has not reported an address yet")
