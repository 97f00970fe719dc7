"""What a kubelet asks of whatever runs containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import trio

from raftkube.errors import RaftkubeError
from raftkube.kubelet.core.pods import Attempts, Container


class PodRef(NamedTuple):
    """Which pod: what names its directories and its log files."""

    uid: str
    namespace: str
    name: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """One attempt to be started. `command` is empty if only the image knows what to run;
    `annotations` are the pod's."""

    pod: PodRef
    name: str
    attempt: int
    image: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


class StartFailed(RaftkubeError):
    """The attempt could not be made, or ended before it began; it counts as an exit with code 128."""


class ImageVerdict(NamedTuple):
    """Whether a container of an image can be started, and what must be said about it: `refusal` is why
    not, `warning` that something else than the image will run. Empty: nothing to say."""

    refusal: str = ""
    warning: str = ""


class Usage(NamedTuple):
    """cpu_s is the total so far."""

    cpu_s: float
    rss_bytes: int


class LogSource(Protocol):
    """The log of one attempt, in CRI format."""

    @property
    def path(self) -> str:
        """The file that is written now; rotation renames it and begins a new one."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing more will be written."""
        ...

    async def wait_change(self) -> None:
        """Return when something is written or the log ends."""
        ...


OnChange = Callable[[str], None]
"""Called with a pod's uid when one of its containers started, ended, or was found."""


class Runtime(Protocol):
    """Runs containers and remembers the last two attempts of each, across restarts of the kubelet."""

    @property
    def scheme(self) -> str:
        """What container ids begin with: process, fake."""
        ...

    async def run(
        self, on_change: OnChange, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Find what ran before, then serve until cancelled; containers go on running after that."""
        ...

    def pods(self) -> list[PodRef]:
        """Every pod that it knows of."""
        ...

    def attempts(self, pod_uid: str) -> Attempts:
        """The pod's containers; empty for an unknown pod."""
        ...

    def image(self, image: str, *, has_command: bool) -> ImageVerdict:
        """What becomes of a container of this image."""
        ...

    async def start(self, config: ContainerConfig) -> Container:
        """Start an attempt. Raises StartFailed; the attempt is remembered as ended then."""
        ...

    def stop(self, container_id: str, *, grace_s: float) -> None:
        """Ask it to end, and end it after `grace_s`; a second call can only shorten the time.
        Unknown or ended containers are left alone. `on_change` tells of the end."""
        ...

    def remove_pod(self, pod_uid: str) -> None:
        """Forget a pod, with its directories and logs; nothing of it runs any more."""
        ...

    async def execute(self, container_id: str, command: Sequence[str]) -> tuple[int, bytes]:
        """Run `command` beside the container, in its directory and environment; (exit code, output).
        Cancelled: it is killed."""
        ...

    def log(self, container_id: str) -> LogSource | None:
        """The attempt's log, if there is one."""
        ...

    def usage(self, container_id: str) -> Usage | None:
        """What it uses now; None if it does not run."""
        ...
