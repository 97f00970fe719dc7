"""`raftkube scheduler` as real processes: paused past its lease it is refused and exits; SIGTERM releases."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from api_world import World, world
from scheduler_objects import node, pod

from raftkube.api.status import ApiError
from raftkube.client.endpoints import LEASES, NODES, PODS
from raftkube.client.rest import RestClient
from raftkube.clock import SystemClock
from raftkube.cluster.kubeconfig import make_kubeconfig, write_kubeconfig
from raftkube.rng import seeded_rng

USER = "system:kube-scheduler"
pytestmark = pytest.mark.e2e


def write_config(w: World) -> Path:
    tls = w.tls(USER)
    pems = [Path(str(name)).read_bytes() for name in (tls.ca_file, tls.cert_file, tls.key_file)]
    urls = [f"https://{address}" for address in w.addresses]
    config = make_kubeconfig(
        name="test", user="scheduler", servers=urls, ca=pems[0], certificate=pems[1], key=pems[2]
    )
    path = w.directory / "scheduler.kubeconfig"
    write_kubeconfig(path, config)
    return path


class Started:
    """A running `raftkube scheduler`; its log lines as dicts in `lines`."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.text = ""

    async def read(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for data in self.process.stderr:
            self.text += data.decode()
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [json.loads(line) for line in lines if line.startswith(b"{")]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]


@asynccontextmanager
async def schedulers(directory: Path, *names: str) -> AsyncIterator[tuple[RestClient, list[Started]]]:
    """One API server with a node, and scheduler processes, started one after another."""
    async with world(directory) as w, trio.open_nursery() as nursery:
        admin = RestClient.connect(
            w.network, w.addresses, w.tls("admin", "system:masters"),
            user_agent="test", clock=SystemClock(), rng=seeded_rng(9),
        )  # fmt: skip
        created = await admin.create(NODES, without(node("node-1"), "uid", "status"))
        await admin.update_status(NODES, created | {"status": node("node-1")["status"]})
        started: list[Started] = []
        config = str(write_config(w))
        try:
            for name in names:
                command = [sys.executable, "-m", "raftkube", "scheduler", "--name", name,
                           "--kubeconfig", config, "--logging-format", "json"]  # fmt: skip
                one = Started(await trio.lowlevel.open_process(command, stderr=subprocess.PIPE))
                started.append(one)
                nursery.start_soon(one.read)
                await until(f"{name} is a candidate", lambda one=one: _now("candidate" in one.events()))
                if one is started[0]:
                    await until("it leads", lambda: _now("scheduling" in started[0].events()))
            yield admin, started
        finally:
            for one in started:
                if one.process.poll() is None:
                    one.process.kill()
        nursery.cancel_scope.cancel()


def without(obj: dict[str, Any], *fields: str) -> dict[str, Any]:
    """A fresh object: what the server fills in left out."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in fields}
    return {key: value for key, value in obj.items() if key not in fields} | {"metadata": metadata}


async def _now(value: bool) -> bool:
    await trio.lowlevel.checkpoint()
    return value


async def until(what: str, ready: Callable[[], Any], seconds: float = 40) -> None:
    """Wait for `await ready()` to be true."""
    deadline = trio.current_time() + seconds
    while not await ready():
        assert trio.current_time() < deadline, f"not within {seconds} s: {what}"
        await trio.sleep(0.05)


async def leader(admin: RestClient) -> str:
    try:
        lease = await admin.get(LEASES, "kube-scheduler", "kube-system")
    except ApiError as error:
        if error.code != 404:
            raise
        return ""
    return str(lease["spec"]["holderIdentity"]).partition("_")[0]


async def test_paused_past_its_lease_it_is_refused_and_exits(tmp_path: Path) -> None:
    async with schedulers(tmp_path, "scheduler-1", "scheduler-2") as (admin, (first, second)):
        assert await leader(admin) == "scheduler-1"
        first.process.send_signal(signal.SIGSTOP)

        async def taken_over() -> bool:
            return await leader(admin) == "scheduler-2"

        await until("scheduler-2 leads", taken_over)
        await admin.create(PODS, without(pod("late"), "uid", "status"))

        async def bound() -> bool:
            return bool((await admin.get(PODS, "late", "default"))["spec"].get("nodeName"))

        await until("scheduler-2 binds", bound)
        first.process.send_signal(signal.SIGCONT)
        with trio.fail_after(20):
            assert await first.process.wait() == 1
        await until("its last words are read", lambda: _now("raftkube: " in first.text))
        sentence = first.text[first.text.index("raftkube: ") :]
        assert sentence.startswith("raftkube: leadership of kube-system/kube-scheduler: ")
        assert "refused with 409" in sentence
        assert "Traceback" not in first.text
        assert second.process.poll() is None


async def test_sigterm_releases_and_exits_with_0(tmp_path: Path) -> None:
    async with schedulers(tmp_path, "scheduler-1") as (admin, (only,)):
        only.process.send_signal(signal.SIGTERM)
        with trio.fail_after(20):
            assert await only.process.wait() == 0
        assert await leader(admin) == ""
        assert "Traceback" not in only.text
