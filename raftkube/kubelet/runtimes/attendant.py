"""The kubelet's side of one running container: its output, its end, and its being ended."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Final

import structlog
import trio

from raftkube.clock import Clock
from raftkube.kubelet.core.pods import EXIT_CODE_LOST, Container
from raftkube.kubelet.runtimes import processes, shim
from raftkube.kubelet.runtimes.container_log import ContainerLog
from raftkube.kubelet.runtimes.processes import Process

log = structlog.get_logger(__name__)

CONTAINER_VARIABLE: Final = "RAFTKUBE_CONTAINER_ID"
_READ_BYTES: Final = 65_536
_KILL_ROUNDS: Final = 20
_KILL_INTERVAL_S: Final = 0.5
_SHIM_END_S: Final = 5.0


@dataclass(eq=False, slots=True)
class Attendant:
    """Attends one container from its start, or its adoption, to its end; see `shim` for the protocol."""

    container: Container
    directory: Path
    cwd: str
    environment: dict[str, str]
    shell: Process
    log: ContainerLog
    clock: Clock
    fifos: dict[str, FileIO] = field(default_factory=dict)
    stopping: trio.CancelScope | None = None
    over: trio.Event = field(default_factory=trio.Event)

    def open(self) -> None:
        """Take hold of the pipes; called before the shell is started, or to adopt a running one."""
        for name in shim.FIFOS[:3]:
            fifo = FileIO(self.directory / name, "r+")  # for both, so that opening never waits
            os.set_blocking(fifo.fileno(), False)
            self.fifos[name] = fifo

    def release(self) -> None:
        """Let go; the container runs on, and what it writes waits for the next kubelet."""
        for fifo in self.fifos.values():
            fifo.close()
        self.fifos.clear()
        self.log.release()

    async def attend(self) -> Container:
        """Write its output to the log until it ends; how it ended. Cancelled: it runs on."""
        handle = processes.open_handle(self.shell)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, "out", "stdout")
                nursery.start_soon(self._pump, "err", "stderr")
                await self._wait_end(handle)
                nursery.cancel_scope.cancel()
            return await self._finish(handle)
        finally:
            self.over.set()
            self.release()
            if handle is not None:
                os.close(handle)

    def request_stop(self, grace_s: float) -> bool:
        """Leave no more than `grace_s` until SIGKILL; True if `stop` is now to be run."""
        deadline = trio.current_time() + grace_s
        if self.stopping is not None:
            self.stopping.deadline = min(self.stopping.deadline, deadline)
            return False
        self.stopping = trio.CancelScope(deadline=deadline)
        return True

    async def stop(self) -> None:
        """SIGTERM to every process of the container; SIGKILL at the deadline of `request_stop`."""
        assert self.stopping is not None
        self._signal(signal.SIGTERM)
        with self.stopping:
            await self.over.wait()
        for _ in range(_KILL_ROUNDS):  # a process that is just being forked is met in the next round
            if self.over.is_set():
                return
            self._signal(signal.SIGKILL)
            with trio.move_on_after(_KILL_INTERVAL_S):
                await self.over.wait()
        log.error("container_survives_sigkill", container=self.container.id, name=self.container.name)

    def members(self) -> list[Process]:
        """Its processes without the shell: the session's, and those that left it but kept the variable."""
        return [
            process
            for process in processes.everything()
            if process.pid != self.shell.pid
            and process.start_ticks >= self.shell.start_ticks
            and (process.session == self.shell.pid or self._is_marked(process))
        ]

    def _is_marked(self, process: Process) -> bool:
        return processes.environment(process.pid).get(CONTAINER_VARIABLE) == self.container.id

    def _signal(self, number: signal.Signals) -> None:
        for process in self.members():
            processes.send_signal(process, number)

    async def _pump(self, name: str, stream: str) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.fifos[name].fileno())
            self._drain(name, stream)

    def _drain(self, name: str, stream: str) -> None:
        """Move what is in the pipe now into the log."""
        while chunk := self.fifos[name].read(_READ_BYTES):
            self.log.append(stream, chunk, self.clock.wall())
            if len(chunk) < _READ_BYTES // 2:
                break

    async def _wait_end(self, handle: int | None) -> None:
        """Until the shell has written the exit code, or is gone itself."""
        while handle is not None and shim.read_exit(self.directory) is None:
            async with trio.open_nursery() as nursery:
                for descriptor in (handle, self.fifos["events"].fileno()):
                    nursery.start_soon(_readable_then_cancel, descriptor, nursery.cancel_scope)
            if processes.find(self.shell.pid) is None:
                return
            with contextlib.suppress(BlockingIOError):
                self.fifos["events"].read(_READ_BYTES)

    async def _finish(self, handle: int | None) -> Container:
        if shim.read_exit(self.directory) is None:
            shim.write_exit(self.directory, EXIT_CODE_LOST)
            self.container = _lost(self.container)
        self._signal(signal.SIGKILL)  # what it left behind ends with it, as in a PID namespace
        for name, stream in (("out", "stdout"), ("err", "stderr")):
            while chunk := self.fifos[name].read(_READ_BYTES):
                self.log.append(stream, chunk, self.clock.wall())
        self.log.close()
        await self._dismiss(handle)
        exit_code, ended_at = shim.read_exit(self.directory) or (EXIT_CODE_LOST, self.clock.wall())
        return ended(self.container, exit_code, ended_at)

    async def _dismiss(self, handle: int | None) -> None:
        """Tell the shell that all is read; wait until it has gone."""
        with contextlib.suppress(OSError), FileIO(self.directory / "ctl", "r+") as ctl:
            ctl.write(b"\n")
            if handle is not None:
                with trio.move_on_after(_SHIM_END_S) as waited:
                    await trio.lowlevel.wait_readable(handle)
                if waited.cancelled_caught:
                    processes.send_signal(self.shell, signal.SIGKILL)
        processes.reap(self.shell.pid)


async def _readable_then_cancel(descriptor: int, scope: trio.CancelScope) -> None:
    await trio.lowlevel.wait_readable(descriptor)
    scope.cancel()


def ended(container: Container, exit_code: int, finished_at: float) -> Container:
    """`container` after its end."""
    return replace(container, exit_code=exit_code, finished_at=max(finished_at, container.started_at))


def _lost(container: Container) -> Container:
    return replace(
        container,
        reason="ContainerStatusUnknown",
        message="The process that watched over the container has gone; nobody saw how it ended",
    )
