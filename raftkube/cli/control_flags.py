"""The flags that scheduler and controller manager share, named as upstream's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raftkube.cli.durations import Duration
from raftkube.errors import ConfigError

if TYPE_CHECKING:
    from raftkube.client.health import HealthSettings
    from raftkube.client.leader_election import ElectionSettings

_OPTIONS = (
    click.option("--name", required=True, help="This process, for example scheduler-1."),
    click.option("--kubeconfig", help="How to reach the API.  [default: $KUBECONFIG, ~/.kube/config]"),
    click.option(
        "--leader-elect", type=bool, is_flag=False, flag_value=True, default=True, show_default=True,
        help="Act only while elected. Without it the API server refuses the writes of these identities.",
    ),
    click.option(
        "--leader-elect-lease-duration", type=Duration(), default="3s", show_default=True,
        help="How long the store keeps the Lease of a leader that has died; whole seconds.",
    ),
    click.option(
        "--leader-elect-renew-deadline", type=Duration(), default="10s", show_default=True,
        help="Give up leading after so long without a renewal. It may exceed the lease: writes are fenced.",
    ),
    click.option(
        "--leader-elect-retry-period", type=Duration(), default="500ms", show_default=True,
        help="Pause between attempts that failed.",
    ),
    click.option("--bind-address", default="127.0.0.1", show_default=True, help="For health and metrics."),
    click.option(
        "--secure-port", type=click.IntRange(0, 65535), default=0, show_default=True,
        help="For health and metrics; 0 serves none.",
    ),
    click.option("--tls-cert-file", help="For --secure-port; without it, plain HTTP on loopback."),
    click.option("--tls-private-key-file", help="Its key."),
)  # fmt: skip


def control_flags(function: Any) -> Any:
    """Adds them; the command gets them all as keyword arguments (see `election_of`, `health_of`)."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def election_of(flags: dict[str, Any]) -> ElectionSettings | None:
    """The election settings of these flags; None without --leader-elect. Raises ConfigError."""
    from raftkube.client.leader_election import ElectionSettings

    if not flags["leader_elect"]:
        return None
    lease_s = flags["leader_elect_lease_duration"]
    if lease_s != int(lease_s):
        raise ConfigError("--leader-elect-lease-duration must be whole seconds, for example 3s")
    return ElectionSettings(
        int(lease_s), flags["leader_elect_renew_deadline"], flags["leader_elect_retry_period"]
    )


def health_of(flags: dict[str, Any]) -> HealthSettings:
    """Where to serve health and metrics. Raises ConfigError: half a key pair, or plain HTTP to others."""
    from raftkube.client.health import HealthSettings
    from raftkube.net import Address, TlsFiles

    certificate, key = flags["tls_cert_file"], flags["tls_private_key_file"]
    if bool(certificate) != bool(key):
        raise ConfigError("--tls-cert-file and --tls-private-key-file go together; give both or neither")
    tls = TlsFiles(cert_file=certificate, key_file=key, require_peer=False) if certificate else None
    return HealthSettings(Address(flags["bind_address"], flags["secure_port"]), tls)
