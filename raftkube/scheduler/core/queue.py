"""Pods that wait for a node: ready, backing off, or unschedulable until the cluster changes.

A pod that failed is tried again when the cluster changed in a way that may help, but not before its backoff
has passed; one that waits for very long is tried anyway, in case a change was missed. Pure: the time comes
with each call, in seconds of one monotonic clock.
Source: k8s.io/kubernetes/pkg/scheduler/backend/queue/scheduling_queue.go.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final

from raftkube.scheduler.core.pod_info import PodInfo

BACKOFF_INITIAL_S: Final = 1.0
BACKOFF_MAX_S: Final = 10.0
UNSCHEDULABLE_MAX_S: Final = 300.0  # DefaultPodMaxInUnschedulablePodsDuration


@dataclass(slots=True)
class _Waiting:
    pod: PodInfo
    since: float  # when it came into the queue first
    attempts: int = 0
    ready_at: float = 0.0
    parked_at: float = 0.0
    changes_seen: int = 0  # changes of the cluster when it was popped
    state: str = "ready"  # ready, backoff, parked, popped
    ticket: int = 0  # of its current entry in a heap; entries with another one are void

    @property
    def backoff_s(self) -> float:
        return float(min(BACKOFF_INITIAL_S * 2.0 ** min(self.attempts - 1, 30), BACKOFF_MAX_S))


@dataclass(slots=True)
class SchedulingQueue:
    """Ready pods come out by priority (highest first), then by waiting time."""

    _pods: dict[str, _Waiting] = field(default_factory=dict)
    _ready: list[tuple[int, float, int, str]] = field(default_factory=list)  # heap, ticket third
    _backoff: list[tuple[float, int, str]] = field(default_factory=list)  # heap, ticket second
    _parked: dict[str, _Waiting] = field(default_factory=dict)  # in the order in which they were parked
    _tickets: int = 0
    _changes: int = 0

    def __len__(self) -> int:
        """All pods that wait, whatever for."""
        return len(self._pods)

    def __contains__(self, key: str) -> bool:
        return key in self._pods

    def count(self, state: str) -> int:
        """How many are `ready`, in `backoff`, `parked` or `popped`."""
        return sum(waiting.state == state for waiting in self._pods.values())

    def add(self, pod: PodInfo, now: float) -> None:
        """A pod as it is now. A new one is ready; a changed one that was parked is tried again."""
        waiting = self._pods.get(pod.key)
        if waiting is None or waiting.pod.uid != pod.uid:
            self.remove(pod.key)
            self._pods[pod.key] = waiting = _Waiting(pod, now)
            self._make_ready(waiting)
            return
        changed = waiting.pod.spec != pod.spec or _labels(waiting.pod) != _labels(pod)
        waiting.pod = pod
        if changed and waiting.state == "parked":
            self._after_backoff(waiting, now)

    def remove(self, key: str, uid: str = "") -> None:
        """It is bound, gone, or not ours. uid: only if it still is this pod, not one reborn by its name."""
        waiting = self._pods.get(key)
        if waiting is not None and uid in ("", waiting.pod.uid):
            del self._pods[key]
            self._parked.pop(key, None)

    def pop(self, now: float) -> PodInfo | None:
        """The next pod to be tried, or None. It stays known as popped until `park`, `retry` or `remove`."""
        self._move_due(now)
        while self._ready:
            _, _, ticket, key = heapq.heappop(self._ready)
            waiting = self._pods.get(key)
            if waiting is None or waiting.ticket != ticket:
                continue
            waiting.state = "popped"
            waiting.ticket = 0
            waiting.attempts += 1
            waiting.changes_seen = self._changes
            return waiting.pod
        return None

    def park(self, pod: PodInfo, now: float) -> None:
        """It fits nowhere: wait for the cluster to change (if it did not meanwhile)."""
        waiting = self._popped(pod)
        if waiting is None:
            return
        waiting.ready_at = now + waiting.backoff_s
        if waiting.changes_seen != self._changes:
            self._after_backoff(waiting, now)
        else:
            waiting.state, waiting.parked_at = "parked", now
            self._parked[pod.key] = waiting

    def retry(self, pod: PodInfo, now: float) -> None:
        """Something failed that has nothing to do with the pod: try it again after its backoff."""
        waiting = self._popped(pod)
        if waiting is not None:
            waiting.ready_at = now + waiting.backoff_s
            self._after_backoff(waiting, now)

    def cluster_changed(self, now: float) -> None:
        """Something changed that may let parked pods fit."""
        self._changes += 1
        for waiting in list(self._parked.values()):
            self._after_backoff(waiting, now)

    def next_due(self) -> float:
        """When `pop` may give a pod that it does not give now; infinity if only a change can help."""
        longest = next(iter(self._parked.values()), None)
        parked = [] if longest is None else [longest.parked_at + UNSCHEDULABLE_MAX_S]
        return min([*parked, *(entry[0] for entry in self._backoff[:1])], default=float("inf"))

    def _popped(self, pod: PodInfo) -> _Waiting | None:
        waiting = self._pods.get(pod.key)
        if waiting is None or waiting.pod.uid != pod.uid or waiting.state != "popped":
            return None
        return waiting

    def _ticket(self, waiting: _Waiting, state: str) -> int:
        self._parked.pop(waiting.pod.key, None)
        self._tickets += 1
        waiting.state, waiting.ticket = state, self._tickets
        return self._tickets

    def _make_ready(self, waiting: _Waiting) -> None:
        ticket = self._ticket(waiting, "ready")
        heapq.heappush(self._ready, (-waiting.pod.priority, waiting.since, ticket, waiting.pod.key))

    def _after_backoff(self, waiting: _Waiting, now: float) -> None:
        if waiting.ready_at <= now:
            self._make_ready(waiting)
        else:
            ticket = self._ticket(waiting, "backoff")
            heapq.heappush(self._backoff, (waiting.ready_at, ticket, waiting.pod.key))

    def _move_due(self, now: float) -> None:
        while self._backoff and self._backoff[0][0] <= now:
            _, ticket, key = heapq.heappop(self._backoff)
            waiting = self._pods.get(key)
            if waiting is not None and waiting.ticket == ticket:
                self._make_ready(waiting)
        for waiting in list(self._parked.values()):
            if waiting.parked_at + UNSCHEDULABLE_MAX_S > now:
                break
            self._after_backoff(waiting, now)


def _labels(pod: PodInfo) -> object:
    return pod.obj["metadata"].get("labels")
