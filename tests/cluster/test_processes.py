"""The processes of a cluster: restarted when they die unasked, never when their disk has failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import trio

from raftkube.clock import SystemClock
from raftkube.cluster import processes as module
from raftkube.cluster.plan import Component
from raftkube.cluster.processes import Managed, Processes, end_leftovers, is_alive, own_mark
from raftkube.cluster.state import ClusterState
from raftkube.errors import ConfigError


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterState:
    """Components are `python -c <argv>` here instead of `python -m raftkube <argv>`."""
    real = trio.lowlevel.open_process

    async def fake(command: list[str], **options: object) -> trio.Process:
        return await real([command[0], "-c", command[3]], **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module.trio.lowlevel, "open_process", fake)
    return ClusterState("test", tmp_path)


def component(code: str) -> Component:
    return Component("part-1", "part", (code,), {})


async def until(managed: Managed, phase: str) -> None:
    with trio.fail_after(20):
        while managed.phase != phase:  # noqa: ASYNC110  another task's field
            await trio.sleep(0.01)


async def test_a_process_that_dies_is_started_again_until_it_is_stopped(state: ClusterState) -> None:
    async with trio.open_nursery() as nursery:
        processes = Processes(state, SystemClock(), nursery)
        processes.add(component("import time; time.sleep(60)"))
        processes.start("part-1")
        managed = processes.find("part-1")
        await until(managed, "running")
        assert managed.process is not None
        first = managed.process.pid
        managed.process.send_signal(signal.SIGKILL)
        await until(managed, "backoff")
        await until(managed, "running")
        assert managed.process.pid != first
        assert managed.restarts == 1
        await processes.stop("part-1")
        assert (managed.phase, managed.process.returncode) == ("stopped", -signal.SIGTERM)
        nursery.cancel_scope.cancel()


async def test_a_killed_one_stays_down_until_it_is_started(state: ClusterState) -> None:
    async with trio.open_nursery() as nursery:
        processes = Processes(state, SystemClock(), nursery)
        processes.add(component("import time; time.sleep(60)"))
        processes.start("part-1")
        managed = processes.find("part-1")
        await until(managed, "running")
        processes.pause("part-1")
        assert managed.process is not None
        with trio.fail_after(20):
            while psutil.Process(managed.process.pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110
                await trio.sleep(0.01)
        processes.resume("part-1")
        processes.kill("part-1")
        await managed.process.wait()
        with pytest.raises(ConfigError, match="part-1 is not running; it is killed"):
            processes.kill("part-1")
        processes.start("part-1")
        await until(managed, "running")
        assert managed.restarts == 0
        await processes.stop("part-1")
        nursery.cancel_scope.cancel()


async def test_a_failed_disk_is_not_restarted(state: ClusterState) -> None:
    async with trio.open_nursery() as nursery:
        processes = Processes(state, SystemClock(), nursery)
        processes.add(component(f"raise SystemExit({module.EXIT_FAILED})"))
        processes.start("part-1")
        managed = processes.find("part-1")
        await until(managed, "failed")
        assert (managed.restarts, managed.last_exit) == (0, 3)
        nursery.cancel_scope.cancel()


async def test_leftovers_are_ended_and_a_reused_pid_is_not(state: ClusterState) -> None:
    async with trio.open_nursery() as nursery:
        processes = Processes(state, SystemClock(), nursery)
        processes.add(component("import time; time.sleep(60)"))
        processes.start("part-1")
        await until(processes.find("part-1"), "running")
        recorded = state.read_json("processes.json")
        pid, started = recorded["processes"]["part-1"]
        state.write_json("processes.json", {"processes": {"part-1": [pid, started + 5]}})
        assert end_leftovers(state) == []
        state.write_json("processes.json", recorded)
        processes.find("part-1").wanted = False
        assert end_leftovers(state) == ["part-1"]
        nursery.cancel_scope.cancel()


def test_an_unknown_component_is_named_with_those_that_are(state: ClusterState) -> None:
    with pytest.raises(ConfigError, match="there is no component 'x'"):
        Processes(state, SystemClock(), None).find("x")  # type: ignore[arg-type]


def test_a_process_that_ended_is_not_alive_even_if_nobody_waits_for_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = [child.pid, psutil.Process(child.pid).create_time()]
    assert is_alive(mark)
    assert is_alive(own_mark())
    assert not is_alive([child.pid, mark[1] - 1]), "another process had that pid before"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is left a zombie
    assert not is_alive(mark)
    child.wait()
    assert not is_alive(mark)
