"""The `process` runtime: each container is a session of processes on this machine, in the host's network
and file system, beside a shell that outlives the kubelet (see `shim`).

Nothing is isolated and images are not unpacked: a command runs as it is, or a named process stands in.
Resource limits and volumes are not applied.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import structlog
import trio

from raftkube.clock import Clock
from raftkube.kubelet.core.pods import EXIT_CODE_LOST, EXIT_CODE_NOT_STARTED, Attempts, Container
from raftkube.kubelet.runtimes import processes, shim
from raftkube.kubelet.runtimes.attendant import CONTAINER_VARIABLE, Attendant, ended
from raftkube.kubelet.runtimes.base import ContainerConfig, ImageVerdict, OnChange, PodRef, StartFailed, Usage
from raftkube.kubelet.runtimes.container_log import ContainerLog, Rotation
from raftkube.kubelet.runtimes.layout import Layout, Record
from raftkube.kubelet.runtimes.processes import Process
from raftkube.rng import Rng

log = structlog.get_logger(__name__)

_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ATTEMPTS_KEPT: Final = 2
Images = Literal["stand-in", "strict"]


class ProcessRuntime:
    """See `raftkube.kubelet.runtimes.base.Runtime`."""

    scheme = "process"

    def __init__(
        self,
        root_dir: str,
        *,
        clock: Clock,
        rng: Rng,
        images: Images = "stand-in",
        rotation: Rotation = Rotation(),  # noqa: B008  immutable
    ) -> None:
        self._layout = Layout(root_dir)
        self._clock = clock
        self._rng = rng
        self._images = images
        self._rotation = rotation
        self._pods: dict[str, PodRef] = {}
        self._attempts: dict[str, dict[str, list[Container]]] = {}
        self._live: dict[str, Attendant] = {}
        self._logs: dict[str, ContainerLog] = {}
        self._nursery: trio.Nursery | None = None
        self._on_change: OnChange = lambda uid: None

    async def run(
        self, on_change: OnChange, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self._on_change = on_change
        async with trio.open_nursery() as self._nursery:
            self._recover()
            task_status.started()
            await trio.sleep_forever()

    def pods(self) -> list[PodRef]:
        return list(self._pods.values())

    def attempts(self, pod_uid: str) -> Attempts:
        return self._attempts.get(pod_uid, {})

    def image(self, image: str, *, has_command: bool) -> ImageVerdict:
        if self._images == "strict":
            return ImageVerdict(
                refusal=f'image "{image}" cannot be unpacked: the process runtime has no images; start the '
                'kubelet with --images stand-in (in a cluster file "images: stand-in") to run commands '
                "without them"
            )
        if has_command:
            return ImageVerdict(
                warning=f'image "{image}" was not unpacked: the command runs as a stand-in process on the '
                "host, in the host's own file system"
            )
        return ImageVerdict(
            warning=f'image "{image}" was not unpacked and the container names no command: a process that '
            "only sleeps stands in for it on the host"
        )

    async def start(self, config: ContainerConfig) -> Container:
        await trio.lowlevel.checkpoint()
        assert self._nursery is not None, "the runtime does not run"
        container = Container(
            id=f"{self._rng.getrandbits(256):064x}",
            pod_uid=config.pod.uid,
            name=config.name,
            attempt=config.attempt,
            image=config.image,
            image_id=f"stand-in://{config.image}",
            started_at=self._clock.wall(),
        )
        try:
            attendant = self._spawn(config, container)
        except (OSError, ValueError) as error:
            message = str(error) if isinstance(error, ValueError) else f"{config.name}: {error.strerror}"
            self._remember_failure(config, container, message)
            raise StartFailed(message) from error
        self._remember(config.pod, container)
        self._live[container.id] = attendant
        self._nursery.start_soon(self._attend, config.pod, attendant)
        return container

    def stop(self, container_id: str, *, grace_s: float) -> None:
        attendant = self._live.get(container_id)
        if attendant is not None and self._nursery is not None and attendant.request_stop(grace_s):
            self._nursery.start_soon(attendant.stop)

    def remove_pod(self, pod_uid: str) -> None:
        pod = self._pods.pop(pod_uid, None)
        for of_name in self._attempts.pop(pod_uid, {}).values():
            for container in of_name:
                self._logs.pop(container.id, None)
        if pod is not None:
            self._layout.remove_pod(pod)

    async def execute(self, container_id: str, command: Sequence[str]) -> tuple[int, bytes]:
        attendant = self._live.get(container_id)
        if attendant is None:
            raise StartFailed("the container does not run")
        try:
            _resolve(command, attendant.environment, attendant.cwd)
            done = await trio.run_process(
                list(command),
                env=attendant.environment,
                cwd=attendant.cwd,
                stdin=b"",
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise StartFailed(str(error)) from error
        return done.returncode, done.stdout

    def log(self, container_id: str) -> ContainerLog | None:
        return self._logs.get(container_id)

    def usage(self, container_id: str) -> Usage | None:
        attendant = self._live.get(container_id)
        if attendant is None:
            return None
        members = attendant.members()
        return Usage(sum(process.cpu_s for process in members), sum(p.rss_bytes for p in members))

    # Starting -------------------------------------------------------------------------------

    def _spawn(self, config: ContainerConfig, container: Container) -> Attendant:
        """Raises OSError or ValueError: it cannot start."""
        directory = self._layout.make_attempt(config)
        cwd = config.working_directory or str(self._layout.work(config.pod.uid))
        environment = self._environment(config, container, cwd)
        command, prepare = list(config.command), ""
        if command:
            _resolve(command, environment, cwd)
        else:
            command, prepare = shim.stand_in(directory, config.image)
        self._layout.write_record(directory, _record(config, container, cwd))
        shim.write_script(directory, command, environment, cwd, prepare)
        attendant = Attendant(
            container,
            directory,
            cwd,
            environment,
            Process(0, "", 0, 0.0, 0, 0),
            self._new_log(config, container),
            self._clock,
        )
        attendant.open()
        try:
            pid = shim.spawn(directory, environment)
        except OSError:
            attendant.release()
            raise
        attendant.shell = processes.find(pid) or Process(pid, "", pid, 0.0, 0, 0)
        return attendant

    def _environment(self, config: ContainerConfig, container: Container, cwd: str) -> dict[str, str]:
        given = {
            "PATH": os.environ.get("PATH", _DEFAULT_PATH),
            "HOME": cwd,
            "HOSTNAME": config.pod.name,
            **config.environment,
            CONTAINER_VARIABLE: container.id,
        }
        for name, value in given.items():
            if "\0" in name + value:
                raise ValueError(f"environment variable {name!r} holds a zero byte; take it out")
        return given

    def _new_log(self, config: ContainerConfig, container: Container) -> ContainerLog:
        path = self._layout.log(config.pod, config.name, config.attempt)
        made = self._logs[container.id] = ContainerLog(path, self._rotation)
        return made

    def _remember(self, pod: PodRef, container: Container) -> None:
        """Put `container` in front of its attempts, and forget those that are too old."""
        self._pods[pod.uid] = pod
        of_name = self._attempts.setdefault(pod.uid, {}).setdefault(container.name, [])
        of_name[:] = sorted(
            [container, *(c for c in of_name if c.id != container.id and c.attempt != container.attempt)],
            key=lambda c: -c.attempt,
        )
        for old in of_name[_ATTEMPTS_KEPT:]:
            self._logs.pop(old.id, None)
            self._layout.remove_attempt(pod, old.name, old.attempt)
        del of_name[_ATTEMPTS_KEPT:]

    def _remember_failure(self, config: ContainerConfig, container: Container, message: str) -> None:
        """An attempt that could not be made is one that ended at once; on disk as well if that can be."""
        failed = replace(
            ended(container, EXIT_CODE_NOT_STARTED, container.started_at),
            reason="StartError",
            message=message,
        )
        try:
            directory = self._layout.attempt(config.pod.uid, config.name, config.attempt)
            self._layout.write_record(directory, _record(config, failed, ""))
            shim.write_exit(directory, EXIT_CODE_NOT_STARTED)
        except (OSError, ValueError, RuntimeError) as error:
            log.warning("start_failure_not_recorded", container=config.name, error=str(error))
        self._remember(config.pod, failed)

    # Attending ------------------------------------------------------------------------------

    async def _attend(self, pod: PodRef, attendant: Attendant) -> None:
        container = await attendant.attend()
        del self._live[container.id]
        if pod.uid in self._pods:
            self._remember(pod, container)
        log.info("container_ended", pod=pod.name, container=container.name, exit_code=container.exit_code)
        self._on_change(pod.uid)

    # After a restart of the kubelet ---------------------------------------------------------

    def _recover(self) -> None:
        """Take up what an earlier kubelet left: adopt what runs, note the end of what does not."""
        shells = _shells(self._layout.root)
        for directory, record in self._layout.records():
            container = Container(
                record.id, record.pod.uid, record.name, record.attempt, record.image, record.image_id,
                record.started_at, reason=record.reason, message=record.message,
            )  # fmt: skip
            self._logs[record.id] = ContainerLog(
                self._layout.log(record.pod, record.name, record.attempt), self._rotation
            )
            shell = shells.get(str(directory / "run"))
            if shell is not None:
                self._adopt(directory, record, container, shell)
            else:
                self._logs[record.id].close()
                self._remember(record.pod, self._find_end(directory, container))

    def _adopt(self, directory: Path, record: Record, container: Container, shell: Process) -> None:
        assert self._nursery is not None
        attendant = Attendant(
            container,
            directory,
            record.cwd,
            processes.environment(shell.pid),
            shell,
            self._logs[container.id],
            self._clock,
        )
        attendant.open()
        self._remember(record.pod, container)
        self._live[container.id] = attendant
        self._nursery.start_soon(self._attend, record.pod, attendant)
        log.info("container_adopted", pod=record.pod.name, container=record.name, pid=shell.pid)

    def _find_end(self, directory: Path, container: Container) -> Container:
        end = shim.read_exit(directory)
        if end is not None:
            return ended(container, *end)
        shim.write_exit(directory, EXIT_CODE_LOST)
        lost = replace(
            container, reason="ContainerStatusUnknown", message="The container was not found after a restart"
        )
        return ended(lost, EXIT_CODE_LOST, self._clock.wall())


def _record(config: ContainerConfig, container: Container, cwd: str) -> Record:
    return Record(
        container.id, config.pod, config.name, config.attempt, config.image, container.image_id,
        container.started_at, cwd, container.reason, container.message,
    )  # fmt: skip


def _resolve(command: Sequence[str], environment: Mapping[str, str], cwd: str) -> None:
    """Raises ValueError, in containerd's words: this command cannot be run."""
    if any("\0" in word for word in command):
        raise ValueError("the command holds a zero byte; take it out")
    if not os.path.isdir(cwd):
        raise ValueError(f'working directory "{cwd}" does not exist on this machine')
    program = command[0]
    if "/" in program:
        path = os.path.join(cwd, program)
        if not os.path.isfile(path):
            raise ValueError(f'exec: "{program}": stat {program}: no such file or directory')
        if not os.access(path, os.X_OK):
            raise ValueError(f'exec: "{program}": permission denied')
    elif shutil.which(program, path=environment.get("PATH", _DEFAULT_PATH)) is None:
        raise ValueError(f'exec: "{program}": executable file not found in $PATH')


def _shells(root: Path) -> dict[str, Process]:
    """The living shells of containers under `root`, by their script. A shell leads its session; its child
    has the same command line until it becomes the container's command."""
    prefix = f"{root}/pods/"
    found = {}
    for process in processes.everything():
        if process.session != process.pid:
            continue
        words = processes.command_line(process.pid)
        if len(words) == 2 and words[0] == shim.SHELL and words[1].startswith(prefix):
            found[words[1]] = process
    return found


# Ending a whole node --------------------------------------------------------------------------


def kill_all(root_dir: str, *, grace_s: float = 2.0) -> int:
    """End every container process that a kubelet with this root directory started; how many there were.

    SIGTERM, after `grace_s` SIGKILL. The kubelet must have stopped, or it starts them again. Only
    processes whose session, script or environment names a container recorded here are touched.
    """
    layout = Layout(root_dir)
    ids = {record.id for _, record in layout.records()}
    members = _members(layout.root, ids)
    _signal_and_wait(members, signal.SIGTERM, grace_s)
    for _ in range(10):  # a process forked meanwhile is met in the next round
        left = _members(layout.root, ids)
        if not left:
            break
        _signal_and_wait(left, signal.SIGKILL, 1.0)
    _signal_and_wait(_shells(layout.root).values(), signal.SIGKILL, 1.0)
    return len(members)


def _members(root: Path, ids: set[str]) -> list[Process]:
    """Every process of every container under `root` but the shells."""
    shells = {process.pid for process in _shells(root).values()}
    return [
        process
        for process in processes.everything()
        if process.pid not in shells
        and (
            process.session in shells
            or processes.environment(process.pid).get(CONTAINER_VARIABLE, "") in ids
        )
    ]  # fmt: skip


def _signal_and_wait(victims: Iterable[Process], number: signal.Signals, timeout_s: float) -> None:
    """Signal each, then wait until all have gone or about `timeout_s` is over."""
    poller, handles = select.poll(), {}
    for process in victims:
        if (handle := processes.open_handle(process)) is not None:
            handles[handle] = process.pid
            poller.register(handle, select.POLLIN)
            processes.send_signal(process, number)
    silent_rounds = 0
    while handles and silent_rounds < timeout_s * 20:
        gone = poller.poll(50)
        silent_rounds += not gone
        for handle, _ in gone:
            poller.unregister(handle)
            processes.reap(handles.pop(handle))
            os.close(handle)
    for handle in handles:
        os.close(handle)
