"""From a cluster file to processes: names, ports, command lines. Pure but for the ports it is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from raftkube.cluster.config import PROGRAM, ClusterConfig, Part
from raftkube.cluster.state import ClusterState

HOST: Final = "127.0.0.1"
SERVICE_RANGE: Final = "10.96.0.0/16"

# Kinds in the order in which they start; a kind starts when those before it serve.
KINDS: Final = ("store", "apiserver", "balancer", "controller-manager", "scheduler", "kubelet")

TakePort = Callable[[str, int], int]
"""(label, wanted or 0) -> the port for this label, the same one on every start where it is free."""


@dataclass(frozen=True, slots=True)
class Component:
    """One process. `argv` follows `python -m` and the module `program`; `ports` are its listeners by name."""

    name: str
    kind: str
    argv: tuple[str, ...]
    ports: Mapping[str, int]
    program: str = PROGRAM


@dataclass(frozen=True, slots=True)
class Plan:
    """Every process of a cluster, in starting order."""

    components: tuple[Component, ...]

    def of_kind(self, kind: str) -> tuple[Component, ...]:
        return tuple(component for component in self.components if component.kind == kind)

    def find(self, name: str) -> Component | None:
        return next((component for component in self.components if component.name == name), None)

    def addresses(self, kind: str, port: str) -> list[str]:
        """host:port of every component of `kind`."""
        return [f"{HOST}:{component.ports[port]}" for component in self.of_kind(kind)]


def kubelet_node(component: str) -> str:
    """kubelet-2 runs node-2."""
    return component.replace("kubelet", "node", 1)


def make_plan(config: ClusterConfig, state: ClusterState, take_port: TakePort) -> Plan:
    """The processes of `config` with their files under `state`."""
    stores = _stores(config, state, take_port)
    store_servers = ",".join(f"{HOST}:{store.ports['client']}" for store in stores)
    apiservers = [
        _apiserver(name, config, state, store_servers, take_port)
        for name in _names("apiserver", config.apiserver)
    ]
    balancer = [_balancer(config, apiservers, take_port)] if apiservers else []
    control = [
        _control(name, kind, part, state, take_port)
        for kind, part in (("controller-manager", config.controller_manager), ("scheduler", config.scheduler))
        for name in _names(kind, part)
    ]
    kubelets = [_kubelet(name, config, state, take_port) for name in _names("kubelet", config.kubelet)]
    return Plan((*stores, *apiservers, *balancer, *control, *kubelets))


def _names(kind: str, part: Part) -> Iterable[str]:
    return (f"{kind}-{number}" for number in range(1, part.replicas + 1))


def _stores(config: ClusterConfig, state: ClusterState, take_port: TakePort) -> list[Component]:
    ports = {
        member.name: {
            "client": take_port(f"{member.name}/client", member.client_port),
            "peer": take_port(f"{member.name}/peer", member.peer_port),
        }
        for member in config.members
    }
    for name, each in ports.items():  # behind all ports that somebody chose
        each["metrics"] = take_port(f"{name}/metrics", 0)
    initial = ",".join(f"{name}={HOST}:{each['peer']}" for name, each in ports.items())
    clients = ",".join(f"{name}={HOST}:{each['client']}" for name, each in ports.items())
    pki = state.pki
    extra = (("--testing",) if config.testing else ()) + (
        ("--mutant", config.mutant) if config.mutant else ()
    )
    return [
        Component(
            name,
            "store",
            (
                "store", "--name", name, "--data-dir", str(state.data_of(name)), "--initial-cluster", initial,
                "--initial-client-urls", clients,
                "--listen-client-urls", f"https://{HOST}:{each['client']}",
                "--listen-peer-urls", f"https://{HOST}:{each['peer']}",
                "--listen-metrics-urls", f"https://{HOST}:{each['metrics']}",
                "--trusted-ca-file", str(pki / "store-ca.crt"),
                "--cert-file", str(pki / f"{name}.crt"), "--key-file", str(pki / f"{name}.key"),
                *extra, *config.store_flags,
            ),
            each,
            config.launcher,
        )
        for name, each in ports.items()
    ]  # fmt: skip


def _apiserver(
    name: str, config: ClusterConfig, state: ClusterState, store_servers: str, take_port: TakePort
) -> Component:
    port = take_port(f"{name}/secure", 0)
    pki = state.pki
    return Component(
        name,
        "apiserver",
        (
            "apiserver", "--name", name, "--bind-address", HOST, "--secure-port", str(port),
            "--store-servers", store_servers, "--store-cafile", str(pki / "store-ca.crt"),
            "--store-certfile", str(pki / f"{name}-store-client.crt"),
            "--store-keyfile", str(pki / f"{name}-store-client.key"),
            "--tls-cert-file", str(pki / f"{name}.crt"), "--tls-private-key-file", str(pki / f"{name}.key"),
            "--client-ca-file", str(pki / "ca.crt"),
            "--kubelet-certificate-authority", str(pki / "ca.crt"),
            "--kubelet-client-certificate", str(pki / "apiserver-kubelet-client.crt"),
            "--kubelet-client-key", str(pki / "apiserver-kubelet-client.key"),
            "--service-cluster-ip-range", SERVICE_RANGE,
            *(("--testing",) if config.testing else ()), *config.apiserver.flags,
        ),
        {"secure": port},
    )  # fmt: skip


def _balancer(config: ClusterConfig, apiservers: list[Component], take_port: TakePort) -> Component:
    port = take_port("balancer/front", config.balancer_port)
    backends = ",".join(f"{HOST}:{server.ports['secure']}" for server in apiservers)
    return Component(
        "balancer",
        "balancer",
        ("balancer", "--listen", f"{HOST}:{port}", "--backends", backends),
        {"front": port},
    )


def _control(name: str, kind: str, part: Part, state: ClusterState, take_port: TakePort) -> Component:
    port = take_port(f"{name}/secure", 0)
    return Component(
        name,
        kind,
        (
            kind, "--name", name, "--kubeconfig", str(state.kubeconfig_of(name)),
            "--bind-address", HOST, "--secure-port", str(port), *part.flags,
        ),
        {"secure": port},
    )  # fmt: skip


def _kubelet(name: str, config: ClusterConfig, state: ClusterState, take_port: TakePort) -> Component:
    port = take_port(f"{name}/kubelet", 0)
    pki = state.pki
    return Component(
        name,
        "kubelet",
        (
            "kubelet", "--name", kubelet_node(name), "--kubeconfig", str(state.kubeconfig_of(name)),
            "--root-dir", str(state.root / "kubelet" / name), "--port", str(port), "--address", HOST,
            "--tls-cert-file", str(pki / f"{name}-server.crt"),
            "--tls-private-key-file", str(pki / f"{name}-server.key"),
            "--client-ca-file", str(pki / "ca.crt"),
            "--container-runtime", config.runtime, "--images", config.images, *config.kubelet.flags,
        ),
        {"kubelet": port},
    )  # fmt: skip
