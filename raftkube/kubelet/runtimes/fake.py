"""The `fake` runtime: containers that only exist in this process, driven by rules, by the thousand.

A pod's annotations override the rules: `raftkube.dev/fake-start-seconds`, `raftkube.dev/fake-run-seconds`
(it ends after so long) and `raftkube.dev/fake-exit-code`. Nothing outlives the process: after
a restart the pods' containers are started anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import trio

from raftkube.clock import Clock
from raftkube.kubelet.core.pods import EXIT_CODE_NOT_STARTED, Attempts, Container
from raftkube.kubelet.runtimes.base import ContainerConfig, ImageVerdict, OnChange, PodRef, StartFailed, Usage
from raftkube.rng import Rng

ANNOTATION_PREFIX = "raftkube.dev/fake-"
_EXIT_CODE_TERM = 143


class FakeRules(NamedTuple):
    """Seconds until a container runs, seconds that it runs (None: for ever), how it ends then."""

    start_s: float = 0.0
    run_s: float | None = None
    exit_code: int = 0

    def with_annotations(self, annotations: Mapping[str, str]) -> FakeRules:
        """Raises ValueError: an annotation is no number."""
        return FakeRules(
            _number(annotations, "start-seconds", self.start_s) or 0.0,
            _number(annotations, "run-seconds", self.run_s),
            int(_number(annotations, "exit-code", self.exit_code) or 0),
        )


def _number(annotations: Mapping[str, str], name: str, default: float | None) -> float | None:
    text = annotations.get(ANNOTATION_PREFIX + name)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"annotation {ANNOTATION_PREFIX}{name}: {text!r} is not a number") from error


class FakeRuntime:
    """See `raftkube.kubelet.runtimes.base.Runtime`."""

    scheme = "fake"

    def __init__(self, *, clock: Clock, rng: Rng, rules: FakeRules = FakeRules()) -> None:  # noqa: B008
        self._clock = clock
        self._rng = rng
        self._rules = rules
        self._pods: dict[str, PodRef] = {}
        self._attempts: dict[str, dict[str, list[Container]]] = {}
        self._running: dict[str, Container] = {}
        self._nursery: trio.Nursery | None = None
        self._on_change: OnChange = lambda uid: None

    async def run(
        self, on_change: OnChange, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self._on_change = on_change
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def pods(self) -> list[PodRef]:
        return list(self._pods.values())

    def attempts(self, pod_uid: str) -> Attempts:
        return self._attempts.get(pod_uid, {})

    def image(self, image: str, *, has_command: bool) -> ImageVerdict:
        return ImageVerdict()

    async def start(self, config: ContainerConfig) -> Container:
        container = Container(
            id=f"{self._rng.getrandbits(256):064x}",
            pod_uid=config.pod.uid,
            name=config.name,
            attempt=config.attempt,
            image=config.image,
            image_id=f"fake://{config.image}",
            started_at=self._clock.wall(),
        )
        try:
            rules = self._rules.with_annotations(config.annotations)
        except ValueError as error:
            failed = replace(container, reason="StartError", message=str(error))
            self._remember(config.pod, self._ended(failed, EXIT_CODE_NOT_STARTED))
            raise StartFailed(str(error)) from error
        await trio.sleep(rules.start_s)
        container = replace(container, started_at=self._clock.wall())
        self._running[container.id] = container
        self._remember(config.pod, container)
        if rules.run_s is not None:
            assert self._nursery is not None, "the runtime does not run"
            self._nursery.start_soon(self._end_after, container.id, rules.run_s, rules.exit_code)
        return container

    def stop(self, container_id: str, *, grace_s: float) -> None:
        self._end(container_id, _EXIT_CODE_TERM)

    def remove_pod(self, pod_uid: str) -> None:
        self._pods.pop(pod_uid, None)
        for of_name in self._attempts.pop(pod_uid, {}).values():
            for container in of_name:
                self._running.pop(container.id, None)

    async def execute(self, container_id: str, command: Sequence[str]) -> tuple[int, bytes]:
        await trio.lowlevel.checkpoint()
        if container_id not in self._running:
            raise StartFailed("the container does not run")
        return 0, b""

    def log(self, container_id: str) -> None:
        return None

    def usage(self, container_id: str) -> Usage | None:
        return Usage(0.0, 0) if container_id in self._running else None

    def _remember(self, pod: PodRef, container: Container) -> None:
        self._pods[pod.uid] = pod
        of_name = self._attempts.setdefault(pod.uid, {}).setdefault(container.name, [])
        of_name[:] = [container, *(old for old in of_name if old.attempt != container.attempt)][:2]

    def _ended(self, container: Container, exit_code: int) -> Container:
        return replace(container, exit_code=exit_code, finished_at=self._clock.wall())

    async def _end_after(self, container_id: str, delay_s: float, exit_code: int) -> None:
        await trio.sleep(delay_s)
        self._end(container_id, exit_code)

    def _end(self, container_id: str, exit_code: int) -> None:
        container = self._running.pop(container_id, None)
        pod = self._pods.get(container.pod_uid) if container is not None else None
        if container is not None and pod is not None:
            self._remember(pod, self._ended(container, exit_code))
            self._on_change(pod.uid)
