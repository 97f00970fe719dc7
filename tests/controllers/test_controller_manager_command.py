"""`raftkube controller-manager`: flags, refusals in one sentence, health and metrics while a candidate."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from raftkube.cli.controller_manager import command
from raftkube.client.health import HealthSettings
from raftkube.client.kubeconfig import ClusterAccess
from raftkube.clock import SystemClock
from raftkube.controllers.controller_manager import (
    WORKERS,
    ControllerManagerConfig,
    enabled_controllers,
    run,
)
from raftkube.errors import ConfigError
from raftkube.net import Address
from raftkube.net.http_client import HttpClient
from raftkube.net.ports import free_port
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng, system_rng


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--controllers", "*,nonsense"], "there is no controller 'nonsense'"),
        (["--node-monitor-grace-period", "0"], "must be more than 0s"),
        (["--node-monitor-grace-period", "long"], "is not a duration"),
        (["--concurrent-gc-syncs", "0"], "1<=x<=1000"),
        (["--root-ca-file", "/nowhere"], "root CA file '/nowhere' cannot be read"),
        (["--leader-elect-lease-duration", "0"], "must be at least 1s"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_flags_name_the_flag(arguments: list[str], words: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "{clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}],"
        " contexts: [{name: x, context: {cluster: c}}], current-context: x}"
    )
    given = ["--name", "controller-manager-1", "--kubeconfig", str(config), *arguments]
    result = CliRunner().invoke(command, given)
    assert result.exit_code != 0
    assert words in (str(result.exception) + result.output)
    assert isinstance(result.exception, ConfigError | SystemExit)


def test_choosing_controllers() -> None:
    assert enabled_controllers("*") == frozenset(WORKERS)
    assert enabled_controllers("namespace-controller") == {"namespace-controller"}
    assert enabled_controllers("*,-namespace-controller") == set(WORKERS) - {"namespace-controller"}


async def test_health_and_metrics_are_served_while_it_is_a_candidate() -> None:
    network = TcpNetwork()
    port = free_port(system_rng(), ())
    nobody = ClusterAccess((Address("127.0.0.1", 1),), None)
    health = HealthSettings(Address("127.0.0.1", port))
    config = ControllerManagerConfig("controller-manager-1", nobody, health=health)
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[Address | None] = trio.TASK_STATUS_IGNORED) -> None:
            await run(
                config, network=network, clock=SystemClock(), rng=seeded_rng(1), task_status=task_status
            )

        address = await nursery.start(start)
        client = HttpClient(network, address, None)
        assert (await client.request("GET", "/healthz")).body == b"ok"
        metrics = await client.request("GET", "/metrics")
        assert b'leader_election_master_status{name="kube-controller-manager"} 0.0' in metrics.body
        nursery.cancel_scope.cancel()
