"""`raftkube kubelet`: one node, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raftkube.cli.logging import log_options

if TYPE_CHECKING:
    from raftkube.kubelet.service import KubeletConfig

_OPEN_FILES = 65_536


@click.command()
@click.option("--name", "--hostname-override", required=True, help="The node's name.")
@click.option("--kubeconfig", required=True, help="Where the API servers are, and who this node is.")
@click.option("--root-dir", required=True, help="Where its pods' files lie; made if it does not exist.")
@click.option(
    "--address", default="127.0.0.1", show_default=True, help="Where it listens; its pods' address."
)
@click.option("--port", default=10250, show_default=True, type=click.IntRange(0, 65_535))
@click.option("--tls-cert-file", required=True, help="The server's certificate.")
@click.option("--tls-private-key-file", required=True, help="Its private key.")
@click.option("--client-ca-file", required=True, help="The CA of those who may call.")
@click.option(
    "--container-runtime", default="process", show_default=True, type=click.Choice(["process", "fake"])
)
@click.option(
    "--images",
    default="stand-in",
    show_default=True,
    type=click.Choice(["stand-in", "strict"]),
    help="A container whose image cannot be unpacked: runs as a stand-in process, or waits.",
)
@click.option(
    "--fake-nodes",
    default=0,
    type=click.IntRange(0, 10_000),
    help="With the fake runtime: so many nodes, NAME-0, NAME-1, …",
)
@click.option("--max-pods", default=110, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--container-log-max-size", default="10Mi", show_default=True, help="When a log is rotated.")
@click.option("--container-log-max-files", default=5, show_default=True, type=click.IntRange(2, 1_000))
@click.option("--node-lease-renew-seconds", default=10.0, type=click.FloatRange(0.1, 40), hidden=True)
@log_options
def command(verbose: int, logging_format: str, kubeconfig: str, **flags: Any) -> None:
    """Run the pods of one node until SIGTERM or SIGINT; their containers run on after that."""
    from raftkube.cli.logging import configure_logging
    from raftkube.cli.service import run_until_signalled
    from raftkube.client.kubeconfig import load_kubeconfig
    from raftkube.clock import SystemClock
    from raftkube.kubelet.service import run
    from raftkube.net.tcp import TcpNetwork
    from raftkube.rng import system_rng

    config = kubelet_config(flags)
    access = load_kubeconfig(kubeconfig)
    configure_logging(logging_format, verbose, component=config.name)
    raise_file_limit()
    network, clock, rng = TcpNetwork(), SystemClock(), system_rng()
    client = access.client(network, user_agent="raftkube-kubelet", clock=clock, rng=rng)
    run_until_signalled(lambda: run(config, client, network=network, clock=clock, rng=rng))


def kubelet_config(flags: dict[str, Any]) -> KubeletConfig:
    """What the flags ask for. Raises ConfigError naming the flag that is wrong and how to mend it."""
    from raftkube.errors import ConfigError
    from raftkube.kubelet.node_loop import NodeTimes
    from raftkube.kubelet.runtimes.container_log import Rotation
    from raftkube.kubelet.service import KubeletConfig
    from raftkube.net import Address, TlsFiles

    if flags["fake_nodes"] and flags["container_runtime"] != "fake":
        raise ConfigError("--fake-nodes needs --container-runtime fake")
    lease_s = flags["node_lease_renew_seconds"]
    return KubeletConfig(
        name=flags["name"],
        root_dir=flags["root_dir"],
        listen=Address(flags["address"], flags["port"]),
        tls=TlsFiles(flags["client_ca_file"], flags["tls_cert_file"], flags["tls_private_key_file"]),
        runtime=flags["container_runtime"],
        images=flags["images"],
        fake_nodes=flags["fake_nodes"],
        pods_max=flags["max_pods"],
        rotation=Rotation(_bytes(flags["container_log_max_size"]), flags["container_log_max_files"]),
        times=NodeTimes(lease_s=lease_s),
    )


def raise_file_limit() -> None:
    """Allow more open files, four for each container; not all that may be, as containers inherit it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _bytes(text: str) -> int:
    """10Mi and the like. Raises ConfigError."""
    from raftkube.errors import ConfigError

    factors = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}
    number, factor = (text[:-2], factors[text[-2:]]) if text[-2:] in factors else (text, 1)
    if not (number.isascii() and number.isdigit() and int(number) * factor >= 4096):
        raise ConfigError(f"--container-log-max-size: {text!r} is not a size of at least 4Ki; write 10Mi")
    return int(number) * factor
