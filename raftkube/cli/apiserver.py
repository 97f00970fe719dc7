"""`raftkube apiserver`: one API server, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raftkube.cli.logging import log_options

if TYPE_CHECKING:
    from raftkube.apiserver.server import ApiServerConfig
    from raftkube.net import TlsFiles


@click.command()
@click.option("--name", default="apiserver", show_default=True, help="This server's name, in logs.")
@click.option("--bind-address", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--secure-port", default=6443, show_default=True, help="The port; 0: any free one.")
@click.option("--store-servers", required=True, help="Client addresses of the store: host:port,…")
@click.option("--store-cafile", help="The store's CA.")
@click.option("--store-certfile", help="Certificate towards the store.")
@click.option("--store-keyfile", help="Its private key.")
@click.option("--tls-cert-file", required=True, help="This server's certificate.")
@click.option("--tls-private-key-file", required=True, help="Its private key.")
@click.option("--client-ca-file", required=True, help="The CA whose certificates clients are known by.")
@click.option("--kubelet-certificate-authority", help="The CA of kubelets' certificates.")
@click.option("--kubelet-client-certificate", help="Certificate towards kubelets.")
@click.option("--kubelet-client-key", help="Its private key.")
@click.option(
    "--service-cluster-ip-range", default="10.96.0.0/16", show_default=True, help="Addresses of Services."
)
@click.option("--testing", is_flag=True, help="Allow what only tests may use.")
@log_options
def command(verbose: int, logging_format: str, **flags: Any) -> None:
    """Run one API server until SIGTERM or SIGINT; then it finishes what is in flight and stops."""
    import trio

    from raftkube.cli.logging import configure_logging

    config = server_config(flags)
    configure_logging(logging_format, verbose, component=config.name)
    _tune_collector()
    trio.run(_serve, config)


async def _serve(config: ApiServerConfig) -> None:
    import signal

    import trio

    from raftkube.apiserver.server import run
    from raftkube.clock import SystemClock
    from raftkube.net.tcp import TcpNetwork
    from raftkube.rng import system_rng

    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                async for _ in signals:
                    stop.set()
                    break
                async for _ in signals:  # a second one does not wait
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop_on_signal)
            await run(config, network=TcpNetwork(), clock=SystemClock(), rng=system_rng(), stop=stop)
            nursery.cancel_scope.cancel()


def server_config(flags: dict[str, Any]) -> ApiServerConfig:
    """What the flags ask for. Raises ConfigError naming the flag that is wrong and how to mend it."""
    from raftkube.apiserver.server import ApiServerConfig
    from raftkube.errors import ConfigError
    from raftkube.net import Address, TlsFiles, parse_address

    if not 0 <= flags["secure_port"] <= 65535:
        raise ConfigError("--secure-port must lie between 0 and 65535")
    servers = tuple(parse_address(text) for text in flags["store_servers"].split(",") if text)
    if not servers:
        raise ConfigError("--store-servers names no address; write host:port,…")
    return ApiServerConfig(
        name=flags["name"],
        bind=Address(flags["bind_address"], flags["secure_port"]),
        tls=TlsFiles(
            flags["client_ca_file"],
            flags["tls_cert_file"],
            flags["tls_private_key_file"],
            require_peer=False,
        ),
        store_addresses=servers,
        store_tls=_client_tls(flags, "store_cafile", "store_certfile", "store_keyfile"),
        kubelet_tls=_client_tls(
            flags, "kubelet_certificate_authority", "kubelet_client_certificate", "kubelet_client_key"
        ),
        service_cidr=flags["service_cluster_ip_range"],
    )


def _client_tls(flags: dict[str, Any], ca: str, certificate: str, key: str) -> TlsFiles | None:
    """TLS files of a client; None where no flag of the three is given."""
    from raftkube.errors import ConfigError
    from raftkube.net import TlsFiles

    given = [flags[name] for name in (ca, certificate, key)]
    if not any(given):
        return None
    if not all(given):
        names = ", ".join("--" + name.replace("_", "-") for name in (ca, certificate, key))
        raise ConfigError(f"{names} belong together; give all or none")
    return TlsFiles(*given)


def _tune_collector() -> None:
    """What is loaded at the start stays; collecting it again and again only costs pauses."""
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
