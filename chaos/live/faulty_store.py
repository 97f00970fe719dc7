"""`python -m chaos.live.faulty_store store …`: a store member behind doors that fail on request.

Everything but the doors is the product's: flags, exit codes, the member itself. The supervisor starts members
by this module where the cluster file names it as `spec.store.launcher`, for which it must say
`testing: true`. Peers speak without TLS, through the proxies of `chaos.live.proxy` where there are any.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import click

from chaos.live.fault_file import FaultFile, Routes
from chaos.live.faulty_disk import FaultyDisk
from raftkube.cli import run
from raftkube.cli.logging import configure_logging
from raftkube.cli.store import command as store_command
from raftkube.cli.store import member_config, serve_member
from raftkube.clock import SystemClock
from raftkube.errors import ConfigError
from raftkube.net import Address, Connection, Listener, Network, TlsFiles, parse_address
from raftkube.net.tcp import TcpNetwork


class ShiftedClock(SystemClock):
    """The wall clock jumps as its fault file says; the monotonic one goes on."""

    __slots__ = ("_faults",)

    def __init__(self, faults: FaultFile) -> None:
        self._faults = faults

    def wall(self) -> float:
        return time.time() + self._faults.read().wall_shift_s


class RoutedNetwork:
    """Implements `raftkube.net.Network`: peers are dialled plain, through proxies; all else as it is."""

    def __init__(self, network: Network, routes: dict[Address, Address], tls: TlsFiles | None) -> None:
        """`tls`: for those dialled without any who are no peers (a blank member asks others for a list)."""
        self._network, self._routes, self._tls = network, routes, tls

    async def connect(self, address: Address, tls: TlsFiles | None) -> Connection:
        if address in self._routes:
            return await self._network.connect(self._routes[address], None)
        return await self._network.connect(address, tls or self._tls)

    async def listen(self, address: Address, tls: TlsFiles | None) -> Listener:
        return await self._network.listen(address, tls)


def _serve(verbose: int, logging_format: str, data_dir: str, **flags: Any) -> None:
    """Run one member of the store until SIGTERM or SIGINT."""
    if not flags["testing"]:
        raise ConfigError("chaos.live.faulty_store fails on request; it is refused without --testing")
    config = member_config(flags)
    configure_logging(logging_format, verbose, component=config.name)
    faults = FaultFile.beside(data_dir, config.name)
    known = Routes.beside(data_dir).of(config.name)
    routes = {parse_address(peer): parse_address(proxy) for peer, proxy in known.items()}
    network = RoutedNetwork(TcpNetwork(), routes, config.client_tls)
    if routes:
        config = dataclasses.replace(config, peer_tls=None)
    serve_member(config, network, ShiftedClock(faults), FaultyDisk(data_dir, faults))


@click.group()
def _launcher() -> None:
    """The store's own command, with other doors."""


_launcher.add_command(click.Command("store", params=store_command.params, callback=_serve))

if __name__ == "__main__":
    sys.exit(run(root=_launcher))
