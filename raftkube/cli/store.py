"""`raftkube store`: one member of the store, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raftkube.cli.logging import log_options
from raftkube.cli.store_history import history_options, history_settings

if TYPE_CHECKING:
    from raftkube.clock import Clock
    from raftkube.disk import Disk
    from raftkube.net import Address, Network, TlsFiles
    from raftkube.store.server.member import MemberConfig
    from raftkube.store.server.monitor import MetricsListen


@click.command()
@click.option("--name", required=True, help="This member's name, as in --initial-cluster.")
@click.option("--data-dir", required=True, help="Where its journal lies; made if it does not exist.")
@click.option("--initial-cluster", required=True, help="All members: name=host:peer-port,…")
@click.option(
    "--initial-cluster-state",
    default="new",
    show_default=True,
    type=click.Choice(["new", "existing"]),
    help="What an empty data directory is: a first member, or one that was added to a cluster that exists.",
)
@click.option(
    "--initial-cluster-token",
    default="raftkube",
    show_default=True,
    help="Tells clusters apart whose initial members are the same.",
)
@click.option("--listen-client-urls", default="https://127.0.0.1:2379", show_default=True)
@click.option("--listen-peer-urls", default="https://127.0.0.1:2380", show_default=True)
@click.option(
    "--listen-metrics-urls",
    default="",
    help="Where /metrics, /livez and /readyz are served: https://host:port,http://…  [default: nowhere]",
)
@click.option("--initial-client-urls", help="The members' client addresses, for redirects: name=host:port,…")
@click.option("--trusted-ca-file", help="The store's CA.")
@click.option("--cert-file", help="This member's certificate.")
@click.option("--key-file", help="Its private key.")
@click.option("--peer-cert-file", help="Certificate towards other members.  [default: --cert-file]")
@click.option("--peer-key-file", help="Its private key.  [default: --key-file]")
@history_options
@click.option("--heartbeat-interval", type=int, help="Milliseconds between heartbeats.")
@click.option("--election-timeout", type=int, help="Milliseconds without a leader before a member campaigns.")
@click.option("--testing", is_flag=True, help="Allow what only tests may use.")
@click.option("--mutant", help="A deliberate defect for the chaos harness (needs --testing).")
@log_options
def command(verbose: int, logging_format: str, data_dir: str, **flags: Any) -> None:
    """Run one member of the store until SIGTERM or SIGINT."""
    from raftkube.cli.logging import configure_logging
    from raftkube.clock import SystemClock
    from raftkube.disk import SystemDisk
    from raftkube.net.tcp import TcpNetwork

    config = member_config(flags)
    configure_logging(logging_format, verbose, component=config.name)
    serve_member(config, TcpNetwork(), SystemClock(), SystemDisk(data_dir))


def serve_member(config: MemberConfig, network: Network, clock: Clock, disk: Disk) -> None:
    """Run a member of `config` in this process, behind these doors, until SIGTERM or SIGINT."""
    from raftkube.cli.collector import tune_collector
    from raftkube.cli.service import run_until_stopped
    from raftkube.rng import system_rng
    from raftkube.store.server.member import run_member

    rng = system_rng()
    tune_collector()
    run_until_stopped(
        lambda stop, *, task_status: run_member(
            config, network=network, clock=clock, rng=rng, disk=disk, stop=stop, task_status=task_status
        )
    )


def member_config(flags: dict[str, Any]) -> MemberConfig:
    """What the flags ask for. Raises ConfigError naming the flag that is wrong and how to mend it."""
    from raftkube.errors import ConfigError
    from raftkube.store.server.member import MemberConfig, parse_members
    from raftkube.store.server.settings import ServerSettings

    if flags["mutant"] is not None and not flags["testing"]:
        raise ConfigError("--mutant makes the store lose data on purpose; it is refused without --testing")
    tls, peer_tls = _tls_of(flags)
    client_addresses = flags["initial_client_urls"]
    return MemberConfig(
        name=flags["name"],
        members=parse_members(flags["initial_cluster"], flag="--initial-cluster"),
        listen_client=_listen_address(flags["listen_client_urls"], "--listen-client-urls", tls),
        listen_peer=_listen_address(flags["listen_peer_urls"], "--listen-peer-urls", tls),
        client_tls=tls,
        peer_tls=peer_tls,
        client_addresses=(
            parse_members(client_addresses, flag="--initial-client-urls") if client_addresses else {}
        ),
        listen_metrics=_metrics_listens(flags["listen_metrics_urls"], tls),
        cluster_state=flags["initial_cluster_state"],
        raft=_raft_settings(flags),
        server=ServerSettings(**history_settings(flags)),
    )


def _metrics_listens(text: str, tls: TlsFiles | None) -> tuple[MetricsListen, ...]:
    """Each URL says by its scheme whether a certificate is asked for; http is open to whoever reaches it."""
    from raftkube.errors import ConfigError
    from raftkube.net import parse_address
    from raftkube.store.server.monitor import MetricsListen

    flag, listens = "--listen-metrics-urls", []
    for url in filter(None, (part.strip() for part in text.split(","))):
        scheme = url.partition("://")[0] if "://" in url else ""
        if scheme not in ("http", "https"):
            raise ConfigError(f"{flag}: {url!r} must say http:// or https://")
        if scheme == "https" and tls is None:
            raise ConfigError(
                f"{flag} asks for https, so --trusted-ca-file, --cert-file and --key-file are needed"
            )
        listens.append(MetricsListen(parse_address(url), tls if scheme == "https" else None))
    return tuple(listens)


def _raft_settings(flags: dict[str, Any]) -> Any:
    from raftkube.errors import ConfigError
    from raftkube.store.raft.settings import RaftSettings

    chosen: dict[str, Any] = {"mutant": flags["mutant"], "cluster_token": flags["initial_cluster_token"]}
    for flag in ("heartbeat_interval", "election_timeout"):
        if flags[flag] is not None and flags[flag] < 1:
            raise ConfigError(f"--{flag.replace('_', '-')} {flags[flag]} is below 1 (milliseconds)")
    if flags["heartbeat_interval"] is not None:
        chosen["heartbeat_s"] = flags["heartbeat_interval"] / 1000
    if flags["election_timeout"] is not None:
        chosen["election_timeout_min_s"] = flags["election_timeout"] / 1000
        chosen["election_timeout_max_s"] = 1.8 * flags["election_timeout"] / 1000
    return RaftSettings(**chosen)


def _tls_of(flags: dict[str, Any]) -> tuple[TlsFiles | None, TlsFiles | None]:
    """TLS files of the client and the peer port; both None without certificate flags."""
    from raftkube.errors import ConfigError
    from raftkube.net import TlsFiles

    ca, cert, key = flags["trusted_ca_file"], flags["cert_file"], flags["key_file"]
    peer_cert, peer_key = flags["peer_cert_file"], flags["peer_key_file"]
    if not (ca or cert or key or peer_cert or peer_key):
        return None, None
    for flag, value in (("--trusted-ca-file", ca), ("--cert-file", cert), ("--key-file", key)):
        if not value:
            raise ConfigError(f"{flag} is missing; TLS needs --trusted-ca-file, --cert-file and --key-file")
    if bool(peer_cert) != bool(peer_key):
        raise ConfigError("--peer-cert-file and --peer-key-file belong together; give both or neither")
    return TlsFiles(ca, cert, key), TlsFiles(ca, peer_cert or cert, peer_key or key)


def _listen_address(text: str, flag: str, tls: TlsFiles | None) -> Address:
    from raftkube.errors import ConfigError
    from raftkube.net import parse_address

    if "," in text:
        raise ConfigError(f"{flag} takes one URL, not {text!r}")
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme not in ("", "http", "https"):
        raise ConfigError(f"{flag}: {text!r} has an unknown scheme; write https://host:port")
    if scheme == "https" and tls is None:
        raise ConfigError(
            f"{flag} asks for https, so --trusted-ca-file, --cert-file and --key-file are needed"
            " (http:// serves plain, for tests only)"
        )
    if scheme == "http" and tls is not None:
        raise ConfigError(f"{flag} asks for http although there are certificate flags; write https://")
    return parse_address(text)
