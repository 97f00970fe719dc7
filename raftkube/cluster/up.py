"""Bringing a cluster up in the foreground or in the background, and taking it down."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Final

import trio

from raftkube.clock import SystemClock
from raftkube.cluster.config import parse_cluster
from raftkube.cluster.control import ask
from raftkube.cluster.plan import make_plan
from raftkube.cluster.processes import end_leftovers, is_alive
from raftkube.cluster.state import ClusterState
from raftkube.cluster.supervisor import Doors, Progress, Supervisor, end_pods, prepare
from raftkube.errors import ConfigError
from raftkube.files import read_file
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import system_rng

DEFAULT_CONFIG: Final = "three-node.yaml"
_POLL_S: Final = 0.1
# Six kinds are stopped one after the other, each within its grace of 10 s.
_DOWN_TIMEOUT_S: Final = 120.0


def read_config(path: str | None) -> tuple[bytes, str]:
    """The cluster file's bytes and its name for messages; `-` is standard input, None the default.

    Raises ConfigError: it cannot be read.
    """
    if path == "-":
        return sys.stdin.buffer.read(), "<stdin>"
    if path is None:
        return (resources.files("cluster_configs") / DEFAULT_CONFIG).read_bytes(), DEFAULT_CONFIG
    return read_file(path, what="cluster file"), path


def doors() -> Doors:
    """The real network, clock and chance."""
    return Doors(TcpNetwork(), SystemClock(), system_rng())


async def run_foreground(
    state: ClusterState,
    text: bytes,
    source: str,
    timeout_s: float,
    progress: Progress,
    on_ready: Callable[[], None],
) -> None:
    """Start, call `on_ready`, stay until `down` or a signal.

    Raises ConfigError: a bad file, a taken port, a component that refuses to start, or not ready within
    `timeout_s` (everything that was started is stopped first).
    """
    outside = doors()
    _, plan = prepare(text, source, state, outside)
    supervisor = Supervisor(state, plan, outside, progress)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(timeout_s) as patience:
            await nursery.start(supervisor.run)
        if patience.cancelled_caught:
            raise ConfigError(
                f"cluster {state.name!r} was not ready within {timeout_s:g} s and was stopped again; "
                f"the logs are in {str(state.root / 'logs')!r}"
            )
        if supervisor.ready:
            on_ready()


async def run_detached(
    state: ClusterState, text: bytes, source: str, timeout_s: float, progress: Progress
) -> None:
    """Start a supervisor of its own session in the background; return when the cluster is ready.

    Raises ConfigError with the supervisor's own sentence when it ends before that.
    """
    prepare(text, source, state, doors())  # a bad file is said here, at once
    log_path = state.log_of("supervisor")
    log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    config_copy = state.root / "cluster.yaml"
    config_copy.write_bytes(text)
    flags = ["--config", str(config_copy), "--name", state.name, "--timeout", str(timeout_s), "--no-context"]
    with log_path.open("wb") as stream:
        process = subprocess.Popen(  # noqa: ASYNC220  nothing else runs here
            [sys.executable, "-m", "raftkube", "up", *flags],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    shown = 0
    while True:
        lines = log_path.read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            if line.startswith(_STEP) and not line.startswith(_STEP + " ") and "is ready" not in line:
                progress(line.removeprefix(_STEP))
        shown = len(lines)
        if process.poll() is not None:
            raise ConfigError(_last_sentence(lines) or f"the supervisor ended; see {str(log_path)!r}")
        if await _is_ready(state):
            return
        await trio.sleep(_POLL_S)


# Progress lines of a supervisor in the background, told from its log lines.
_STEP: Final = "raftkube up: "


def _last_sentence(lines: list[str]) -> str:
    said = [line.removeprefix("raftkube: ") for line in lines if line.startswith("raftkube: ")]
    return said[-1] if said else ""


async def _is_ready(state: ClusterState) -> bool:
    try:
        return bool((await ask(state, {"verb": "status"}))["ready"])
    except ConfigError:
        return False


async def run_down(state: ClusterState, *, purge: bool, progress: Progress) -> None:
    """Stop the cluster's processes and pods; with `purge` delete its files too.

    Works without a supervisor: what it left behind is ended. Raises ConfigError: there is no such cluster.
    """
    state.require()
    try:
        supervisor = await ask(state, {"verb": "down"})
    except ConfigError:
        for name in end_leftovers(state):
            progress(f"ended {name}, left behind by its supervisor")
        _end_pods(state)
    else:
        await _until_gone(state, supervisor)
    if purge:
        shutil.rmtree(state.root)


async def _until_gone(state: ClusterState, supervisor: list[Any]) -> None:
    """Its process, not its socket: a supervisor that no longer answers may still be there.

    Raises ConfigError: the supervisor does not end; nothing was deleted.
    """
    with trio.move_on_after(_DOWN_TIMEOUT_S):
        while is_alive(supervisor):  # noqa: ASYNC110  another process
            await trio.sleep(_POLL_S)
        return
    raise ConfigError(
        f"cluster {state.name!r} did not stop within {_DOWN_TIMEOUT_S:g} s; "
        f"see {str(state.log_of('supervisor'))!r}, end its supervisor, and say `raftkube down` again"
    )


def _end_pods(state: ClusterState) -> None:
    saved = state.read_json("cluster.json")
    config = parse_cluster(saved["config"], saved["source"])
    end_pods(state, make_plan(config, state, lambda label, _: int(saved["ports"].get(label, 0))))


async def run_status(state: ClusterState) -> dict[str, Any]:
    """What the supervisor says, with the leaders. Raises ConfigError: not running."""
    state.require()
    status: dict[str, Any] = await ask(state, {"verb": "status"})
    return status


def component_log(state: ClusterState, component: str) -> Path:
    """The log of `component`. Raises ConfigError: there is none; the message lists those that are."""
    state.require()
    path = state.log_of(component)
    if not path.exists():
        there = ", ".join(sorted(found.stem for found in path.parent.glob("*.log")))
        raise ConfigError(f"there is no log of {component!r}; there are {there}")
    return path
