"""The processes of a cluster: started, watched, signalled, restarted with backoff.

A process is a session of its own, so that Ctrl-C reaches only the supervisor. Every pid is recorded with
its start time; what a killed supervisor left behind is ended by the next `up` or `down`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Final

import psutil
import structlog
import trio

from raftkube.clock import Clock
from raftkube.cluster.first_starts import FirstStarts
from raftkube.cluster.plan import Component
from raftkube.cluster.state import ClusterState
from raftkube.errors import ConfigError

log = structlog.get_logger(__name__)

_BACKOFF_FIRST_S: Final = 0.25
_BACKOFF_MAX_S: Final = 30.0
_STABLE_S: Final = 30.0  # alive for so long: the next backoff starts anew
_STOP_GRACE_S: Final = 10.0
# A store member with a failed or damaged disk ends with this; nothing restarts it by itself.
EXIT_FAILED: Final = 3
_LAST_WORDS_BYTES_MAX: Final = 4096


@dataclass(slots=True)
class Managed:
    """One component and what is known of its process."""

    component: Component
    phase: str = "stopped"  # starting, running, paused, stopped, killed, backoff, failed
    process: trio.Process | None = None
    started_s: float = 0.0
    restarts: int = 0
    backoff_s: float = _BACKOFF_FIRST_S
    last_exit: int | None = None
    reason: str | None = None  # why it failed, in its own words
    wanted: bool = False
    changed: trio.Event = field(default_factory=trio.Event)

    def describe(self, now_s: float) -> dict[str, Any]:
        """The row of `raftkube status`."""
        alive = self.process is not None and self.phase in ("starting", "running", "paused")
        return {
            "name": self.component.name,
            "kind": self.component.kind,
            "phase": self.phase,
            "pid": self.process.pid if alive and self.process else None,
            "ports": dict(self.component.ports),
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "reason": self.reason if self.phase == "failed" else None,
            "uptime_s": round(now_s - self.started_s, 1) if alive else None,
        }


class Processes:
    """All processes of one cluster; each is kept by a task in the caller's nursery."""

    def __init__(self, state: ClusterState, clock: Clock, nursery: trio.Nursery) -> None:
        self._state = state
        self._clock = clock
        self._nursery = nursery
        self._managed: dict[str, Managed] = {}
        self._first_starts = FirstStarts(state)

    def add(self, component: Component) -> None:
        """Know a component; it starts with `start`."""
        managed = self._managed[component.name] = Managed(component)
        self._nursery.start_soon(self._keep, managed)

    def find(self, name: str) -> Managed:
        """Raises ConfigError: no such component; the message lists those that are."""
        managed = self._managed.get(name)
        if managed is None:
            raise ConfigError(f"there is no component {name!r}; there are {', '.join(self._managed)}")
        return managed

    def all(self) -> list[Managed]:
        return list(self._managed.values())

    def describe(self) -> list[dict[str, Any]]:
        now_s = self._clock.monotonic()
        return [managed.describe(now_s) for managed in self._managed.values()]

    def last_words(self, name: str) -> str:
        """The last line of the log of the component `name`; of one that ended, the sentence why."""
        path = self._state.log_of(name)
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _LAST_WORDS_BYTES_MAX))
            lines = stream.read().decode(errors="replace").splitlines()
        return lines[-1].removeprefix("raftkube: ") if lines else f"see {path}"

    def start(self, name: str) -> None:
        """Let it run (again). No effect if it does."""
        managed = self.find(name)
        if managed.phase not in ("starting", "running", "paused"):
            managed.wanted, managed.backoff_s, managed.phase = True, _BACKOFF_FIRST_S, "starting"
            self._wake(managed)

    def kill(self, name: str) -> None:
        """SIGKILL; it stays down until `start`."""
        managed = self._alive(name)
        managed.wanted, managed.phase = False, "killed"
        self._signal(managed, signal.SIGKILL)

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        managed = self._alive(name)
        managed.phase = "paused"
        self._signal(managed, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        managed = self._alive(name)
        managed.phase = "running"
        self._signal(managed, signal.SIGCONT)

    async def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL after a grace period; it stays down until `start`. Returns when it is."""
        managed = self.find(name)
        managed.wanted = False
        process = managed.process
        if process is None or process.returncode is not None:
            managed.phase = "stopped"
            self._wake(managed)
            return
        managed.phase = "stopped"
        self._signal(managed, signal.SIGCONT)
        self._signal(managed, signal.SIGTERM)
        with trio.move_on_after(_STOP_GRACE_S) as grace:
            await process.wait()
        if grace.cancelled_caught:
            log.warning("killed_after_grace", component=name)
            self._signal(managed, signal.SIGKILL)
            await process.wait()

    def _alive(self, name: str) -> Managed:
        managed = self.find(name)
        if managed.process is None or managed.process.returncode is not None:
            raise ConfigError(f"{name} is not running; it is {managed.phase}")
        return managed

    def _signal(self, managed: Managed, number: signal.Signals) -> None:
        if managed.process is not None and managed.process.returncode is None:
            managed.process.send_signal(number)

    def _wake(self, managed: Managed) -> None:
        managed.changed.set()
        managed.changed = trio.Event()

    async def _keep(self, managed: Managed) -> None:
        """Run the component whenever it is wanted; after an unasked death wait and run it again."""
        while True:
            while not managed.wanted:
                await managed.changed.wait()
            await self._run_once(managed)
            if managed.phase in ("stopped", "killed", "starting"):  # asked for, or already asked back
                continue
            if managed.last_exit == EXIT_FAILED:
                managed.wanted, managed.phase = False, "failed"
                managed.reason = self.last_words(managed.component.name)
                log.error("component_failed", component=managed.component.name, log=self._log_path(managed))
                continue
            managed.phase = "backoff"
            managed.restarts += 1
            if self._clock.monotonic() - managed.started_s > _STABLE_S:
                managed.backoff_s = _BACKOFF_FIRST_S
            log.warning(
                "component_died",
                component=managed.component.name,
                exit_code=managed.last_exit,
                restart_in_s=managed.backoff_s,
            )
            changed = managed.changed
            with trio.move_on_after(managed.backoff_s):
                await changed.wait()
            managed.backoff_s = min(managed.backoff_s * 2, _BACKOFF_MAX_S)

    def _log_path(self, managed: Managed) -> str:
        return str(self._state.log_of(managed.component.name))

    async def _run_once(self, managed: Managed) -> None:
        log_path = self._state.log_of(managed.component.name)
        log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log_path.open("ab") as stream:
            managed.process = await trio.lowlevel.open_process(
                [sys.executable, "-m", managed.component.program, *self._argv(managed.component)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        managed.started_s = self._clock.monotonic()
        managed.phase = "running"
        self._record()
        try:
            await managed.process.wait()
        finally:
            managed.last_exit = managed.process.returncode

    def _argv(self, component: Component) -> tuple[str, ...]:
        if component.kind != "store":
            return component.argv
        return (*component.argv, "--initial-cluster-state", self._first_starts.flag(component.name))

    def _record(self) -> None:
        """Write every live pid with its start time, which tells it from a later process of that pid."""
        pids = {
            managed.component.name: [managed.process.pid, _start_time(managed.process.pid)]
            for managed in self._managed.values()
            if managed.process is not None and managed.process.returncode is None
        }
        try:
            self._state.write_json("processes.json", {"processes": pids})
        except ConfigError as error:  # a full disk ends no component that runs
            log.warning("processes_not_recorded", error=str(error))


def end_leftovers(state: ClusterState) -> list[str]:
    """SIGKILL what a dead supervisor left behind; the names of what was ended."""
    if not (state.root / "processes.json").exists():
        return []
    ended = []
    for name, (pid, started) in state.read_json("processes.json").get("processes", {}).items():
        if started is not None and _start_time(pid) == started:
            process = psutil.Process(pid)
            process.kill()
            psutil.wait_procs([process], timeout=5)
            ended.append(name)
    state.write_json("processes.json", {"processes": {}})
    return ended


def own_mark() -> list[Any]:
    """[pid, start time] of this process; `is_alive` tells it from a later one of that pid."""
    return [os.getpid(), _start_time(os.getpid())]


def is_alive(mark: list[Any]) -> bool:
    """Whether the process with that mark still runs; one that ended and that nobody waited for does not."""
    pid, started = mark
    try:
        process = psutil.Process(pid)
        return process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _start_time(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
