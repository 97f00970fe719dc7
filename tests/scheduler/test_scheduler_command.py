"""`raftkube scheduler`: flags, refusals in one sentence, health and metrics over a real socket."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from raftkube.cli.scheduler import command
from raftkube.client.health import HealthSettings, serve_health
from raftkube.client.kubeconfig import ClusterAccess
from raftkube.clock import SystemClock
from raftkube.errors import ConfigError
from raftkube.net import Address
from raftkube.net.http_client import HttpClient
from raftkube.net.ports import free_port
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng, system_rng
from raftkube.scheduler.metrics import SchedulerMetrics
from raftkube.scheduler.service import SchedulerConfig, run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--leader-elect-lease-duration", "1.5s"], "must be whole seconds"),
        (["--leader-elect-lease-duration", "0"], "must be at least 1s"),
        (["--leader-elect-lease-duration", "soon"], "is not a duration"),
        (["--leader-elect-renew-deadline", "100ms"], "at least --leader-elect-retry-period"),
        (["--bind-address", "0.0.0.0", "--secure-port", "1"], "only loopback is served"),
        (["--tls-cert-file", "x"], "go together"),
        (["--secure-port", "70000"], "0<=x<=65535"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_flags_name_the_flag(arguments: list[str], words: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "{clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}],"
        " contexts: [{name: x, context: {cluster: c}}], current-context: x}"
    )
    given = ["--name", "scheduler-1", "--kubeconfig", str(config), *arguments]
    result = CliRunner().invoke(command, given)
    assert result.exit_code != 0
    assert words in (str(result.exception) + result.output)
    assert isinstance(result.exception, ConfigError | SystemExit)


async def test_health_and_metrics_are_served_while_it_is_a_candidate() -> None:
    network = TcpNetwork()
    port = free_port(system_rng(), ())
    nobody = ClusterAccess((Address("127.0.0.1", 1),), None)
    config = SchedulerConfig("scheduler-1", nobody, health=HealthSettings(Address("127.0.0.1", port)))
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[Address | None] = trio.TASK_STATUS_IGNORED) -> None:
            await run(
                config, network=network, clock=SystemClock(), rng=seeded_rng(1), task_status=task_status
            )

        address = await nursery.start(start)
        client = HttpClient(network, address, None)
        for path in ("/healthz", "/livez", "/readyz"):
            answer = await client.request("GET", path)
            assert (answer.status, answer.body) == (200, b"ok")
        metrics = await client.request("GET", "/metrics")
        assert b'leader_election_master_status{name="kube-scheduler"} 0.0' in metrics.body
        assert (await client.request("GET", "/nonsense")).status == 404
        nursery.cancel_scope.cancel()


async def test_port_zero_serves_nothing() -> None:
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[Address | None] = trio.TASK_STATUS_IGNORED) -> None:
            settings = HealthSettings(Address("127.0.0.1", 0))
            await serve_health(TcpNetwork(), settings, SchedulerMetrics().registry, task_status=task_status)

        assert await nursery.start(start) is None
