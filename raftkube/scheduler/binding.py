"""Carrying a decision out: bind the pod, or say on it why it waits. Every write carries the fencing token."""

from __future__ import annotations

from typing import Literal

import structlog

from raftkube.api.status import ApiError
from raftkube.client.endpoints import PODS, Object
from raftkube.client.errors import IndefiniteApiError
from raftkube.client.events import EventRecorder
from raftkube.client.rest import RestClient
from raftkube.clock import Clock, rfc3339
from raftkube.scheduler.core.pod_info import PodInfo

log = structlog.get_logger(__name__)

# bound: it is (or somebody bound it elsewhere: the cache will say); gone: no such pod any more;
# failed: it is not bound, try again.
Outcome = Literal["bound", "gone", "failed"]


class Binder:
    """Writes to pods under one leadership."""

    def __init__(self, client: RestClient, events: EventRecorder, clock: Clock) -> None:
        self._client = client
        self._events = events
        self._clock = clock

    async def bind(self, pod: PodInfo, node_name: str) -> Outcome:
        """Bind through pods/binding. After an indefinite answer the pod is read to learn what happened."""
        try:
            await self._client.bind(pod.obj, node_name)
        except ApiError as error:
            log.warning("bind_failed", pod=pod.key, node=node_name, code=error.code, error=error.message)
            if error.code == 404:
                return "gone"
            if error.code != 409 and not isinstance(error, IndefiniteApiError):
                return "failed"
            return await self._look(pod, node_name)
        return self._bound(pod, node_name)

    async def explain(self, pod: PodInfo, message: str) -> None:
        """Set PodScheduled=False with `message`, unless it says so already, and record an event."""
        self._events.warning(pod.obj, "FailedScheduling", message)
        before = _condition(pod.obj)
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": rfc3339(self._clock.wall()),
        }
        if before.get("status") == "False" and before.get("lastTransitionTime"):
            condition["lastTransitionTime"] = before["lastTransitionTime"]
        if all(before.get(name) == condition[name] for name in ("status", "reason", "message")):
            return
        metadata = pod.obj["metadata"]
        patch = {"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(
                PODS, metadata["name"], patch, metadata["namespace"], type="strategic", subresource="status"
            )
        except ApiError as error:
            log.info("condition_not_written", pod=pod.key, error=error.message)

    def _bound(self, pod: PodInfo, node_name: str) -> Outcome:
        log.info("bound", pod=pod.key, node=node_name)
        self._events.normal(pod.obj, "Scheduled", f"Successfully assigned {pod.key} to {node_name}")
        return "bound"

    async def _look(self, pod: PodInfo, node_name: str) -> Outcome:
        metadata = pod.obj["metadata"]
        try:
            current = await self._client.get(PODS, metadata["name"], metadata["namespace"])
        except ApiError as error:
            return "gone" if error.code == 404 else "failed"
        if current["metadata"]["uid"] != pod.uid:
            return "gone"
        found = current["spec"].get("nodeName")
        if found == node_name:
            return self._bound(pod, node_name)
        return "bound" if found else "failed"


def _condition(pod: Object) -> Object:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled":
            found: Object = condition
            return found
    return {}
