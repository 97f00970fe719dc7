"""A pod whose create was not answered may be there: nothing is counted before that is known, and its name is
tried again before another pod is made."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from raftkube.api.status import ApiError
from raftkube.client.endpoints import PODS, REPLICA_SETS, Endpoint, Object
from raftkube.client.errors import IndefiniteApiError
from raftkube.client.watch import WatchEvent
from raftkube.clock import SystemClock
from raftkube.controllers.metrics import ControllerMetrics
from raftkube.controllers.replica_set import ReplicaSetController
from raftkube.controllers.runtime import Context
from raftkube.rng import seeded_rng

LOST = IndefiniteApiError(504, "Timeout", "no answer")
KIND = {"apiVersion": "apps/v1", "kind": "ReplicaSet"}
BUSY = ApiError(503, "ServiceUnavailable", "no leader")


class ScriptedClient:
    """Creates end as `script` says, one after another: (error or None, whether the pod is made)."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.revision = 10
        self.pods: dict[str, Object] = {}
        self.asked: list[str] = []

    async def create(self, endpoint: Endpoint, pod: Object) -> Object:
        await trio.lowlevel.checkpoint()
        name = pod["metadata"]["name"]
        self.asked.append(name)
        if self.script and self.script[0][0] is BUSY:
            self.script.pop(0)
            raise BUSY
        if name in self.pods:
            raise ApiError(409, "AlreadyExists", f"pods {name} already exists")
        what, made = self.script.pop(0)
        if made:
            self.revision += 1
            metadata = pod["metadata"] | {"uid": f"uid of {name}", "resourceVersion": str(self.revision)}
            self.pods[name] = pod | {"metadata": metadata}
        if what is not None:
            raise what
        return self.pods[name]

    async def get(self, endpoint: Endpoint, name: str, namespace: str = "") -> Object:
        await trio.lowlevel.checkpoint()
        if name not in self.pods:
            raise ApiError(404, "NotFound", name)
        return self.pods[name]

    async def update_status(self, endpoint: Endpoint, obj: Object) -> Object:
        await trio.lowlevel.checkpoint()
        return obj


class Rig:
    """One controller with caches that the test fills."""

    def __init__(self, *script: Any, replicas: int = 1) -> None:
        self.client = ScriptedClient(*script)
        client: Any = self.client
        context = Context(client, SystemClock(), seeded_rng(1), ControllerMetrics())
        self.controller = ReplicaSetController(context)
        self._pods = context.tracked(PODS).informer
        template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template,
        }
        metadata = {"name": "web", "namespace": "default", "uid": "rs", "resourceVersion": "9"}
        context.tracked(REPLICA_SETS).informer.replace([{**KIND, "metadata": metadata, "spec": spec}], "10")
        self._pods.replace([], "10")

    async def round(self) -> None:
        await self.controller.reconcile("default/web")

    def show(self) -> None:
        """The watch shows all pods."""
        for pod in self.client.pods.values():
            self._pods.apply(WatchEvent("ADDED", pod))


async def test_a_refusal_after_a_missing_answer_does_not_settle_it() -> None:
    rig = Rig((LOST, True), (BUSY, False))
    with pytest.raises(ApiError):
        await rig.round()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.round)
        await trio.testing.wait_all_tasks_blocked()  # for the cache, which does not show the pod yet
        rig.show()
    assert len(rig.client.pods) == 1


async def test_the_name_is_tried_again_before_another_is_made() -> None:
    rig = Rig((LOST, False), (BUSY, False), (BUSY, False), (None, True))
    for _ in range(2):
        with pytest.raises(ApiError):
            await rig.round()
    await rig.round()
    assert len(set(rig.client.asked)) == 1
    assert len(rig.client.pods) == 1


async def test_a_pod_that_another_made_under_that_name_settles_it() -> None:
    rig = Rig((LOST, True), (None, True))
    await rig.round()  # AlreadyExists, and it is ours
    rig.show()
    await rig.round()
    assert len(rig.client.pods) == 1
