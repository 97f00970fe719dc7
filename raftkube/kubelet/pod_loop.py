"""The sync loop: for each pod of this node, look, plan, act, report; again whenever something changed.

What changes (the pod in the API, a container, a probe, a backoff that is over) only puts the pod's uid on a
queue; one worker at a time has a pod, and it starts from what is the case now. A pod leaves the API when
nothing of it runs any more: the kubelet deletes it with grace 0 and its uid as precondition.
"""

from __future__ import annotations

from typing import Final, Protocol

import structlog
import trio

from raftkube.api.status import ApiError
from raftkube.client.endpoints import revision_of
from raftkube.client.work_queue import QueueStopped, WorkQueue
from raftkube.clock import Clock
from raftkube.kubelet.core import pods
from raftkube.kubelet.core.backoff import BackoffPolicy
from raftkube.kubelet.core.plan import Observed, Plan, Stop, Waiting, plan_end, plan_pod
from raftkube.kubelet.core.pods import Container, Object
from raftkube.kubelet.core.status import StatusInput, compute_status, differs
from raftkube.kubelet.pod_state import PodState
from raftkube.kubelet.prober import Prober
from raftkube.kubelet.runtimes.base import PodRef, Runtime
from raftkube.kubelet.starter import ConfigSource, Events, Starter, field_path
from raftkube.net import Network

log = structlog.get_logger(__name__)

_GRACE_MIN_S: Final = 2.0  # upstream's minimumGracePeriodInSeconds
_DEADLINE_EXCEEDED: Final = Waiting(
    "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
)


class PodWriter(Protocol):
    """How a pod's status goes to the API; all raise ApiError."""

    async def write_status(self, pod: Object, status: Object) -> Object:
        """Merge `status` into the status of this very pod (by uid); the pod after it."""
        ...

    async def finish(self, pod: Object) -> None:
        """Delete this very pod at once."""
        ...


class PodLoop:
    """`observe` and `forget` pods as the API shows them; `run` carries them out."""

    def __init__(
        self,
        runtime: Runtime,
        writer: PodWriter,
        sources: ConfigSource,
        events: Events,
        *,
        network: Network,
        clock: Clock,
        node_ip: str,
        policy: BackoffPolicy = BackoffPolicy(),  # noqa: B008  immutable
        workers: int = 8,
    ) -> None:
        self._runtime = runtime
        self._writer = writer
        self._events = events
        self._clock = clock
        self._node_ip = node_ip
        self._policy = policy
        self._workers = workers
        self._queue: WorkQueue[str] = WorkQueue(clock, backoff_base_s=0.1, backoff_max_s=10.0)
        self._pods: dict[str, PodState] = {}
        self._starter = Starter(runtime, sources, events, clock, policy)
        self._prober = Prober(runtime, network, self._queue.add, self._unhealthy)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled. `started`: the runtime has found what ran before."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._runtime.run, self._queue.add)
            await nursery.start(self._prober.run)
            task_status.started()
            for _ in range(self._workers):
                nursery.start_soon(self._work)

    # What the API shows -----------------------------------------------------------------------

    def observe(self, pod: Object) -> None:
        """This is the pod now."""
        uid = pods.uid(pod)
        state = self._pods.get(uid)
        if state is None:
            state = self._pods[uid] = PodState(_ref(pod), pod)
        elif state.pod is None or revision_of(pod) >= revision_of(state.pod):
            state.pod, state.gone = pod, False
        self._queue.add(uid)

    def forget(self, pod: Object) -> None:
        """The API has this pod no more."""
        state = self._pods.get(pods.uid(pod))
        if state is not None:
            state.gone = True
            if state.pod is not None and revision_of(pod) >= revision_of(state.pod):
                state.pod = pod
            self._queue.add(state.ref.uid)

    def forget_strangers(self) -> None:
        """Once all pods were observed: end those that only the runtime still has."""
        for ref in self._runtime.pods():
            if ref.uid not in self._pods:
                log.info("orphan_found", pod=ref.name, namespace=ref.namespace, uid=ref.uid)
                self._pods[ref.uid] = PodState(ref, None, gone=True)
                self._queue.add(ref.uid)

    def pods(self) -> list[Object]:
        """The pods as last seen (for the server's /pods)."""
        return [state.pod for state in self._pods.values() if state.pod is not None and not state.gone]

    def find(self, namespace: str, name: str) -> Object | None:
        """The pod of this name as last seen."""
        named = (p for p in self.pods() if p["metadata"]["name"] == name)
        return next((p for p in named if p["metadata"].get("namespace", "") == namespace), None)

    # Workers ----------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            try:
                uid = await self._queue.get()
            except QueueStopped:
                return
            try:
                await self._sync(uid)
                self._queue.forget(uid)
            except ApiError as error:
                log.info("pod_sync_interrupted", uid=uid, error=error.message)
                self._queue.add_rate_limited(uid)
            except Exception:  # the boundary: one pod never stops the others
                log.exception("pod_sync_failed", uid=uid)
                self._queue.add_rate_limited(uid)
            finally:
                self._queue.done(uid)

    async def _sync(self, uid: str) -> None:
        state = self._pods.get(uid)
        if state is None:
            return
        if state.gone or state.pod is None:
            self._end_forgotten(state)
            return
        self._check_deadline(state, state.pod)
        ended = pods.is_deleted(state.pod) or pods.is_finished(state.pod) or state.failure is not None
        plan = self._plan(state, state.pod, ended=ended)
        self._stop(state, plan.stops)
        await self._start(state, plan)
        self._attend_probes(state)
        await self._report(state, plan, ended=ended)
        if plan.ready_at is not None:
            self._queue.add_after(uid, plan.ready_at - self._clock.wall())
        if pods.is_deleted(state.pod) and not self._running(uid):
            await self._finish(state)

    def _plan(self, state: PodState, pod: Object, *, ended: bool) -> Plan:
        attempts = self._runtime.attempts(state.ref.uid)
        if ended:
            return plan_end(pod, attempts, "Stopping container {name}")
        running = [of_name[0] for of_name in attempts.values() if of_name]
        seen = Observed(
            attempts,
            self._clock.wall(),
            state.backoffs,
            frozenset(c.id for c in running if self._prober.failed(c)),
            frozenset(c.id for c in running if self._prober.started(c)),
        )
        return plan_pod(pod, seen, self._policy)

    def _stop(self, state: PodState, stops: list[Stop]) -> None:
        for stop in stops:
            container = stop.container
            if state.pod is not None and state.announce_once("Killing", container.id):
                text = stop.why.format(name=container.name)
                self._events.normal(
                    state.pod, "Killing", text, field_path=field_path(state.pod, {"name": container.name})
                )
            self._runtime.stop(container.id, grace_s=max(stop.grace_s, _GRACE_MIN_S))

    async def _start(self, state: PodState, plan: Plan) -> None:
        for start in plan.starts:
            outcome = await self._starter.start(state, start, self._node_ip)
            if outcome.waiting is not None:
                plan.waiting[start.container["name"]] = outcome.waiting
                plan.wake_at(outcome.retry_at)
            else:
                self._queue.add(state.ref.uid)  # what follows it (the next init container) starts then

    def _attend_probes(self, state: PodState) -> None:
        attempts = self._runtime.attempts(state.ref.uid)
        specs = {c["name"]: c for c in pods.all_containers(state.pod or {"spec": {}})}
        for name, of_name in attempts.items():
            for position, container in enumerate(of_name):
                if position == 0 and container.running and name in specs and state.pod is not None:
                    self._prober.attend(state.pod, specs[name], container, self._node_ip)
                else:
                    self._prober.drop([container.id])

    def _running(self, uid: str) -> list[Container]:
        return [c[0] for c in self._runtime.attempts(uid).values() if c and c[0].running]

    # Reporting --------------------------------------------------------------------------------

    async def _report(self, state: PodState, plan: Plan, *, ended: bool) -> None:
        pod = state.pod
        assert pod is not None
        self._announce_backoff(state, plan)
        attempts = self._runtime.attempts(state.ref.uid)
        newest = [of_name[0] for of_name in attempts.values() if of_name]
        seen = StatusInput(
            attempts,
            plan.waiting,
            frozenset(c.id for c in newest if self._prober.ready(c)),
            frozenset(c.id for c in newest if self._prober.started(c)),
            self._node_ip,
            self._clock.wall(),
            self._runtime.scheme,
            ended=ended and not any(c.running for c in newest),
            failure=state.failure,
        )
        status = compute_status(pod, seen)
        revision = str(pod["metadata"].get("resourceVersion", ""))
        if state.sent == (status, revision) or not differs(pod.get("status") or {}, status):
            return
        written = await self._writer.write_status(pod, status)
        state.sent = (status, str(written["metadata"].get("resourceVersion", "")))
        self.observe_own(state, written)

    def observe_own(self, state: PodState, written: Object) -> None:
        """Take the answer to our own write at once, so that the next look does not start from before it."""
        if state.pod is None or revision_of(written) >= revision_of(state.pod):
            state.pod = written

    def _announce_backoff(self, state: PodState, plan: Plan) -> None:
        assert state.pod is not None
        for name, waiting in plan.waiting.items():
            last = pods.latest(self._runtime.attempts(state.ref.uid), name)
            crashed = waiting.reason == "CrashLoopBackOff" and last is not None
            if crashed and last is not None and state.announce_once("BackOff", last.id):
                text = f"Back-off restarting failed container {name} in pod {pods.full_name(state.pod)}"
                self._events.warning(
                    state.pod, "BackOff", text, field_path=field_path(state.pod, {"name": name})
                )

    def _check_deadline(self, state: PodState, pod: Object) -> None:
        deadline = pods.deadline(pod)
        if deadline is None or pods.is_finished(pod) or state.failure is not None:
            return
        left_s = deadline - self._clock.wall()
        if left_s > 0:
            self._queue.add_after(state.ref.uid, left_s)
            return
        state.failure = _DEADLINE_EXCEEDED
        self._events.normal(pod, _DEADLINE_EXCEEDED.reason, _DEADLINE_EXCEEDED.message)

    def _unhealthy(self, pod: Object, message: str) -> None:
        self._events.warning(pod, "Unhealthy", message)

    # Ends -------------------------------------------------------------------------------------

    async def _finish(self, state: PodState) -> None:
        """Everything has ended and is reported: take the pod out of the API."""
        if state.delete_sent or state.pod is None:
            return
        try:
            await self._writer.finish(state.pod)
        except ApiError as error:
            if error.code not in (404, 409):  # 409: another pod has its name by now
                raise
        state.delete_sent = True

    def _end_forgotten(self, state: PodState) -> None:
        """End what runs of a pod that the API has no more; then forget it here as well."""
        uid = state.ref.uid
        running = self._running(uid)
        if running:
            grace_s = pods.DEFAULT_GRACE_S if state.pod is None else pods.grace_s(state.pod)
            self._stop(state, [Stop(c, grace_s, "Stopping container {name}") for c in running])
            return
        attempts = self._runtime.attempts(uid)
        self._prober.drop(container.id for of_name in attempts.values() for container in of_name)
        self._runtime.remove_pod(uid)
        del self._pods[uid]


def _ref(pod: Object) -> PodRef:
    metadata = pod["metadata"]
    node = str(pod["spec"].get("nodeName") or "")
    return PodRef(str(metadata["uid"]), str(metadata.get("namespace") or ""), str(metadata["name"]), node)
