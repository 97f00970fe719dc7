"""`raftkube controller-manager` as a real process: it works, stops gracefully, and ends when deposed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import yaml
from controlled_world import USER, Cluster, cluster, deployment, holder, rolled_out, until

from raftkube.client.endpoints import DEPLOYMENTS, LEASES, PODS


def kubeconfig(c: Cluster, path: Path) -> Path:
    tls = c.world.tls(USER)
    cluster_entry = {
        "server": f"https://{c.world.addresses[0]}",
        "certificate-authority": tls.ca_file,
    }
    user = {"client-certificate": tls.cert_file, "client-key": tls.key_file}
    path.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": cluster_entry}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return path


@asynccontextmanager
async def process(c: Cluster, directory: Path, name: str) -> AsyncIterator[trio.Process]:
    """A leading controller manager; what it says is in `directory`/`name`.log."""
    config = kubeconfig(c, directory / "controller-manager.kubeconfig")
    command = [
        sys.executable, "-m", "raftkube", "controller-manager", "--name", name,
        "--kubeconfig", str(config), "--leader-elect-lease-duration", "2s",
    ]  # fmt: skip
    with (directory / f"{name}.log").open("wb") as log:
        started = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        with trio.CancelScope(shield=True):
            await started.wait()


async def _leads(c: Cluster, name: str) -> bool:
    return await holder(c) == name


async def test_it_works_and_lets_go_on_sigterm(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c, process(c, tmp_path, "cm-1") as running:
        await c.admin.create(DEPLOYMENTS, deployment(2))
        await until("rolled out", lambda: rolled_out(c))
        running.terminate()
        with trio.fail_after(20):
            assert await running.wait() == 0
        assert await c.find(LEASES, "kube-controller-manager", "kube-system") is None


async def test_one_that_was_stopped_past_its_lease_writes_nothing_and_ends(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c, process(c, tmp_path, "cm-1") as first:
        await until("the first leads", lambda: _leads(c, "cm-1"))
        await c.admin.create(DEPLOYMENTS, deployment(2))
        await until("rolled out", lambda: rolled_out(c))
        first.send_signal(signal.SIGSTOP)
        async with process(c, tmp_path, "cm-2"):
            await until("the second leads", lambda: _leads(c, "cm-2"))
            await c.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 4}})
            await until("the second scales", lambda: rolled_out(c))
            first.send_signal(signal.SIGCONT)
            with trio.fail_after(20):
                assert await first.wait() == 1
            assert await _leads(c, "cm-2")
            assert len(await c.names(PODS)) == 4
        said = (tmp_path / "cm-1.log").read_text()
        assert "raftkube: leadership of kube-system/kube-controller-manager" in said
        assert "409" in said
        assert "Traceback" not in said
