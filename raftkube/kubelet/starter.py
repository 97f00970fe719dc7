"""Starting one container: its image, its environment, its process, and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

import structlog

from raftkube.clock import Clock
from raftkube.kubelet.core import pods
from raftkube.kubelet.core.backoff import BackoffPolicy, duration
from raftkube.kubelet.core.environment import (
    ConfigRef,
    ContainerConfigError,
    make_command,
    make_environment,
    names_command,
    references,
)
from raftkube.kubelet.core.plan import Start, Waiting
from raftkube.kubelet.core.pods import Object
from raftkube.kubelet.pod_state import ImageTry, PodState
from raftkube.kubelet.runtimes.base import ContainerConfig, Runtime, StartFailed

log = structlog.get_logger(__name__)

_CONFIG_RETRY_S: Final = 2.0
_IMAGE_FLIP_S: Final = 1.0  # ErrImagePull is shown so long before ImagePullBackOff


class Events(Protocol):
    """The recorder of events; see `raftkube.client.events.EventRecorder`."""

    def normal(self, about: Object, reason: str, message: str, *, field_path: str = "") -> None: ...
    def warning(self, about: Object, reason: str, message: str, *, field_path: str = "") -> None: ...


class ConfigSource(Protocol):
    """Where ConfigMaps and Secrets come from."""

    async def read(self, namespace: str, ref: ConfigRef) -> Mapping[str, str] | None:
        """Its data as text; None if it does not exist. Raises ApiError: not known."""
        ...


class Outcome(NamedTuple):
    """`waiting`: why it does not run, if it was not even tried; `retry_at`: the wall second to try again."""

    waiting: Waiting | None = None
    retry_at: float = 0.0


class Starter:
    """Starts containers and records the events of it."""

    def __init__(
        self,
        runtime: Runtime,
        sources: ConfigSource,
        events: Events,
        clock: Clock,
        policy: BackoffPolicy,
    ) -> None:
        self._runtime = runtime
        self._sources = sources
        self._events = events
        self._clock = clock
        self._policy = policy

    async def start(self, state: PodState, start: Start, node_ip: str) -> Outcome:
        """Try to start; what hinders it, if anything. Raises ApiError: a source could not be asked."""
        pod, container = state.pod, start.container
        assert pod is not None
        if (refused := self._image(state, container)) is not None:
            return refused
        try:
            config = await self._config(state, start, node_ip)
        except ContainerConfigError as error:
            self._warn_once(state, container, "Failed", f"Error: {error}")
            waiting = Waiting("CreateContainerConfigError", str(error))
            return Outcome(waiting, self._clock.wall() + _CONFIG_RETRY_S)
        if start.after is not None:
            state.backoffs[container["name"]] = self._policy.next(
                state.backoffs.get(container["name"]), start.after.finished_at, self._clock.wall()
            )
        await self._run(pod, container, config)
        return Outcome()

    async def _run(self, pod: Object, container: Object, config: ContainerConfig) -> None:
        path = field_path(pod, container)
        verdict = self._runtime.image(config.image, has_command=bool(config.command))
        if verdict.warning and config.attempt == 0:
            self._events.warning(pod, "ImageNotUnpacked", verdict.warning, field_path=path)
        try:
            await self._runtime.start(config)
        except StartFailed as error:
            log.info("container_not_started", pod=config.pod.name, container=config.name, error=str(error))
            self._events.warning(pod, "Failed", f"Error: failed to start container: {error}", field_path=path)
            return
        log.info("container_started", pod=config.pod.name, container=config.name, attempt=config.attempt)
        if self._runtime.scheme != "fake":  # thousands of simulated pods would drown the API in events
            self._events.normal(pod, "Created", f"Created container: {config.name}", field_path=path)
            self._events.normal(pod, "Started", f"Started container {config.name}", field_path=path)

    async def _config(self, state: PodState, start: Start, node_ip: str) -> ContainerConfig:
        pod, container = state.pod, start.container
        assert pod is not None
        found = {
            ref: await self._sources.read(state.ref.namespace, ref) for ref in set(references(container))
        }
        environment = make_environment(pod, container, found, node_ip=node_ip)
        return ContainerConfig(
            pod=state.ref,
            name=container["name"],
            attempt=start.attempt,
            image=str(container.get("image") or ""),
            command=tuple(make_command(container, environment)),
            environment=environment,
            working_directory=str(container.get("workingDir") or ""),
            annotations=pod["metadata"].get("annotations") or {},
        )

    def _image(self, state: PodState, container: Object) -> Outcome | None:
        """Why this image keeps the container waiting; None if it does not."""
        image, now = str(container.get("image") or ""), self._clock.wall()
        verdict = self._runtime.image(image, has_command=names_command(container))
        if not verdict.refusal:
            return None
        before = state.images.get(image)
        if before is not None and now < before.retry_at:
            message = f'Back-off pulling image "{image}": ErrImagePull: {before.message}'
            self._warn_once(state, container, "BackOff", f'Back-off pulling image "{image}"')
            return Outcome(Waiting("ImagePullBackOff", message), before.retry_at)
        backoff = self._policy.next(None if before is None else before.backoff, now, now)
        state.images[image] = ImageTry(backoff, now + backoff.delay_s, verdict.refusal)
        text = f'Failed to pull image "{image}": {verdict.refusal}'
        self._events.warning(state.pod or {}, "Failed", text, field_path=field_path(state.pod, container))
        log.info("image_refused", pod=state.ref.name, image=image, retry_in=duration(backoff.delay_s))
        return Outcome(Waiting("ErrImagePull", verdict.refusal), now + min(_IMAGE_FLIP_S, backoff.delay_s))

    def _warn_once(self, state: PodState, container: Object, reason: str, message: str) -> None:
        if state.pod is not None and state.announce_once(reason, message):
            self._events.warning(state.pod, reason, message, field_path=field_path(state.pod, container))


def field_path(pod: Object | None, container: Object) -> str:
    """Where the container stands in its pod, as events name it."""
    inits = pods.init_containers(pod) if pod is not None else []
    section = "initContainers" if container in inits else "containers"
    return f"spec.{section}{{{container['name']}}}"
