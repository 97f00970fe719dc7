"""What to do next for one pod: which containers to start and stop, and what the others wait for.

Level-based: the plan follows from the pod and from what its runtime reports, never from what was done
before. Source: kuberuntime's computePodActions and computeInitContainerActions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from raftkube.kubelet.core import pods
from raftkube.kubelet.core.backoff import Backoff, BackoffPolicy, duration
from raftkube.kubelet.core.pods import Attempts, Container, Object


class Waiting(NamedTuple):
    """Why a container does not run."""

    reason: str
    message: str = ""


class Start(NamedTuple):
    """Start this container (its spec) as attempt number `attempt`; `after`: what it replaces."""

    container: Object
    attempt: int
    after: Container | None


class Stop(NamedTuple):
    """End this container within `grace_s` seconds."""

    container: Container
    grace_s: float
    why: str


class Observed(NamedTuple):
    """What is seen besides the pod: `failed_probes` and `started` hold container ids (a liveness or
    startup probe has given the container up; it passed its startup probe)."""

    attempts: Attempts
    now: float
    backoffs: Mapping[str, Backoff] = {}
    failed_probes: frozenset[str] = frozenset()
    started: frozenset[str] = frozenset()


@dataclass(slots=True)
class Plan:
    """`ready_at`: the earliest wall second at which a new plan may differ by itself."""

    starts: list[Start] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    ready_at: float | None = None

    def wake_at(self, moment: float) -> None:
        self.ready_at = moment if self.ready_at is None else min(self.ready_at, moment)


def plan_pod(pod: Object, seen: Observed, policy: BackoffPolicy) -> Plan:
    """The next steps for a pod that is to run; see `plan_end` for one that is to end."""
    planner = _Planner(pod, seen, policy, Plan())
    if not planner.initialize():
        return planner.plan
    for container in pods.containers(pod):
        planner.keep(container, pods.restart_policy(pod))
    if planner.main_is_over():
        for container in pods.init_containers(pod):
            planner.stop(container["name"], "The pod's other containers have ended")
        planner.plan.starts.clear()
    return planner.plan


def plan_end(pod: Object, attempts: Attempts, why: str) -> Plan:
    """Stop whatever runs."""
    running = [of_name[0] for of_name in attempts.values() if of_name and of_name[0].running]
    return Plan(stops=[Stop(container, pods.grace_s(pod), why) for container in running])


@dataclass(slots=True)
class _Planner:
    pod: Object
    seen: Observed
    policy: BackoffPolicy
    plan: Plan

    def initialize(self) -> bool:
        """Plan the init containers; True if the main containers may run."""
        initialized = any(self._latest(c) is not None for c in pods.containers(self.pod))
        for container in pods.init_containers(self.pod):
            if pods.is_sidecar(container):
                if not self._sidecar_started(container) and not initialized:
                    return False
            elif not initialized and not self._init_done(container):
                return False
        return True

    def keep(self, container: Object, restart_policy: str) -> None:
        """Have this container run as far as `restart_policy` wants it."""
        last = self._latest(container)
        if last is None:
            self.plan.starts.append(Start(container, 0, None))
        elif last.running:
            self._check(container, last)
        elif should_restart(last, restart_policy):
            self._restart(container, last)

    def stop(self, name: str, why: str) -> None:
        last = pods.latest(self.seen.attempts, name)
        if last is not None and last.running:
            self.plan.stops.append(Stop(last, pods.grace_s(self.pod), why))

    def main_is_over(self) -> bool:
        """Whether every main container has ended for good."""
        policy = pods.restart_policy(self.pod)
        ends = [self._latest(container) for container in pods.containers(self.pod)]
        return all(end is not None and not end.running and not should_restart(end, policy) for end in ends)

    def _latest(self, container: Object) -> Container | None:
        return pods.latest(self.seen.attempts, container["name"])

    def _sidecar_started(self, container: Object) -> bool:
        self.keep(container, "Always")
        last = self._latest(container)
        return last is not None and last.running and last.id in self.seen.started

    def _init_done(self, container: Object) -> bool:
        last = self._latest(container)
        if last is not None and last.exit_code == 0:
            return True
        policy = "Never" if pods.restart_policy(self.pod) == "Never" else "OnFailure"
        self.keep(container, policy)
        return False

    def _check(self, container: Object, last: Container) -> None:
        name = container["name"]
        if last.image != container.get("image", ""):
            self.stop(name, f"Container {name} definition changed, will be restarted")
        elif last.id in self.seen.failed_probes:
            self.stop(name, f"Container {name} failed its probe, will be restarted")

    def _restart(self, container: Object, last: Container) -> None:
        name = container["name"]
        backoff = self.seen.backoffs.get(name)
        ready_at = self.policy.ready_at(backoff, last.finished_at)
        if self.seen.now >= ready_at:
            self.plan.starts.append(Start(container, last.attempt + 1, last))
            return
        delay_s = ready_at - last.finished_at if backoff is None else backoff.delay_s
        self.plan.waiting[name] = Waiting(
            "CrashLoopBackOff",
            f"back-off {duration(delay_s)} restarting failed container={name} pod={pods.full_name(self.pod)}",
        )
        self.plan.wake_at(ready_at)


def should_restart(last: Container, restart_policy: str) -> bool:
    """Whether a container that ended so is to run again."""
    if restart_policy == "OnFailure":
        return last.exit_code != 0
    return restart_policy == "Always"
