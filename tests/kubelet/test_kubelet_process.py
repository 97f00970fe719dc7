"""`raftkube kubelet` as a process of its own: killed, started again, stopped, and started wrongly."""

# ruff: noqa: ASYNC240  (real processes, polled)

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from kubelet_world import KubeletWorld, kubelet_world, main_status, make_pod, phase

from raftkube.client.endpoints import PODS
from raftkube.cluster.kubeconfig import make_kubeconfig, write_kubeconfig

CALL = "import sys; from raftkube.cli import main; main(sys.argv[1:])"


def command(world: KubeletWorld) -> list[str]:
    """The command line of a kubelet in `world`."""
    directory = world.directory
    client = world.tls("system:node:node-1", "system:nodes")
    server = world.tls("node-1-server", server=True)
    assert client.ca_file
    assert client.cert_file
    assert client.key_file
    config = make_kubeconfig(
        name="test", user="node", servers=[f"https://{world.api}"], ca=Path(client.ca_file).read_bytes(),
        certificate=Path(client.cert_file).read_bytes(), key=Path(client.key_file).read_bytes(),
    )  # fmt: skip
    write_kubeconfig(directory / "kubeconfig", config)
    return [
        sys.executable, "-c", CALL, "kubelet", "--name", "node-1",
        "--kubeconfig", str(directory / "kubeconfig"),
        "--root-dir", world.root("node-1"), "--port", "0", "--tls-cert-file", str(server.cert_file),
        "--tls-private-key-file", str(server.key_file), "--client-ca-file", world.ca,
    ]  # fmt: skip


async def open_kubelet(world: KubeletWorld) -> trio.Process:
    log = (world.directory / "kubelet.log").open("ab")
    return await trio.lowlevel.open_process(command(world), stdout=subprocess.DEVNULL, stderr=log)


async def test_containers_outlive_a_killed_kubelet_and_a_stopped_one(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        kubelet = await open_kubelet(world)
        try:
            script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo said; exec sleep 3600"
            await world.create(PODS, make_pod("web", "sh", "-c", script))
            before = main_status(await world.until("web", lambda pod: phase(pod) == "Running"))
            kubelet.send_signal(signal.SIGKILL)
            assert await kubelet.wait() == -9
            (tmp_path / "go").touch()
            kubelet = await open_kubelet(world)
            text = await _log_through_api(world)
            assert text == b"said\n"
            kubelet.send_signal(signal.SIGTERM)
            with trio.fail_after(20):
                assert await kubelet.wait() == 0
            kubelet = await open_kubelet(world)
            assert await _log_through_api(world) == b"said\n"
            after = main_status(await world.admin.get(PODS, "web", "default"))
            assert after["containerID"] == before["containerID"]
            assert after["restartCount"] == 0
            await world.admin.delete(PODS, "web", "default")
            await world.until_gone("web")
        finally:
            kubelet.kill()
            await kubelet.wait()


async def _log_through_api(world: KubeletWorld) -> bytes:
    """The pod's log once a kubelet serves it (its port changes with every start)."""
    from raftkube.api.status import ApiError

    with trio.fail_after(20):
        while True:
            try:
                reply = await world.admin.exchange("GET", "/api/v1/namespaces/default/pods/web/log")
                if reply.body:
                    return reply.body
            except ApiError:
                pass
            await trio.sleep(0.05)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--fake-nodes": "3"}, "raftkube: --fake-nodes needs --container-runtime fake"),
        ({"--container-log-max-size": "1"}, "'1' is not a size of at least 4Ki; write 10Mi"),
        ({"--kubeconfig": "/no/such"}, "kubeconfig '/no/such' cannot be read: No such file"),
        ({"--root-dir": "/proc/no"}, "'/proc/no' cannot be used"),
        ({"--tls-cert-file": "/no/such"}, "TLS files"),
        ({"--address": "192.0.2.1"}, "cannot listen on 192.0.2.1:0"),
        ({"--images": "maybe"}, "'maybe' is not one of 'stand-in', 'strict'"),
    ],
)  # fmt: skip
async def test_wrong_input_is_one_sentence(tmp_path: Path, change: dict[str, str], sentence: str) -> None:
    from raftkube.clock import SystemClock
    from raftkube.cluster.certificates import Authority

    authority = Authority.create("ca", SystemClock())
    ca = authority.write(tmp_path, "ca")
    certificate, key = authority.issue("n", hosts=("127.0.0.1",), server=True).write(tmp_path, "n")
    config = make_kubeconfig(
        name="t", user="n", servers=["https://127.0.0.1:1"], ca=Path(ca).read_bytes(),
        certificate=Path(certificate).read_bytes(), key=Path(key).read_bytes(),
    )  # fmt: skip
    write_kubeconfig(tmp_path / "kubeconfig", config)
    flags: dict[str, Any] = {
        "--name": "node-1", "--kubeconfig": str(tmp_path / "kubeconfig"),
        "--root-dir": str(tmp_path / "root"),
        "--port": "0", "--tls-cert-file": certificate, "--tls-private-key-file": key, "--client-ca-file": ca,
    } | change  # fmt: skip
    words = [word for pair in flags.items() for word in pair]
    with trio.fail_after(30):
        done = await trio.run_process(
            [sys.executable, "-c", CALL, "kubelet", *words], capture_stderr=True, check=False
        )
    text = done.stderr.decode()
    assert done.returncode == 2, text
    assert sentence in text
    assert "Traceback" not in text
