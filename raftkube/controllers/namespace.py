"""The namespace controller: empties a namespace that is being deleted, then lets it go.

Pods go first, since they may still use the rest. Source: k8s.io/kubernetes/pkg/controller/namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from raftkube.api.deletion import BACKGROUND
from raftkube.api.objects import items, section
from raftkube.api.status import ApiError
from raftkube.client.endpoints import NAMESPACES, PODS, Endpoint, Object, object_key
from raftkube.client.errors import FencingTokenStale
from raftkube.client.work_queue import WorkQueue
from raftkube.controllers.core import namespace as core
from raftkube.controllers.core.owners import is_deleting
from raftkube.controllers.runtime import Context
from raftkube.controllers.served import Served

log = structlog.get_logger(__name__)

_RETRY_S: Final = 5.0  # content that hangs on finalizers is looked at again so often
_PAUSE_S: Final = 0.2  # after content went, more of it may go


class NamespaceController:
    """Keys are names of namespaces."""

    name = "namespace-controller"

    def __init__(self, context: Context, served: Iterable[Served]) -> None:
        self.queue: WorkQueue[str] = WorkQueue(context.clock)
        self._clock = context.clock
        self._client = context.client
        self._namespaces = context.tracked(NAMESPACES)
        self._served = [s for s in served if s.endpoint.namespaced and s.verbs >= {"list", "delete"}]
        self._namespaces.on_change(self._namespace_changed)
        # Pods end when their kubelet says so: what waits for the last one need not wait for the clock.
        context.tracked(PODS).on_change(self._pod_changed)

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and is_deleting(new):
            self.queue.add(object_key(new))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is not None:
            return
        namespace = self._namespaces.get(old["metadata"]["namespace"])
        if namespace is not None and is_deleting(namespace):
            self.queue.add_after(object_key(namespace), _PAUSE_S)

    async def reconcile(self, key: str) -> None:
        """Delete what is there; report what remains, or finish."""
        namespace = await self._namespaces.find(key)
        if namespace is None or not is_deleting(namespace):
            return
        if core.FINALIZER not in items(section(namespace, "spec"), "finalizers"):
            return
        remains = await self._empty(key)
        if remains.empty:
            await self._finish(namespace)
            return
        await self._report(namespace, remains)
        self.queue.add_after(key, _RETRY_S if remains.finalizers else _PAUSE_S * 5)

    # Content --------------------------------------------------------------------------------

    async def _empty(self, namespace: str) -> core.Remains:
        """Ask for the deletion of everything; other kinds wait until the pods are gone."""
        pods = [s for s in self._served if s.endpoint == PODS]
        remains = await self._delete_all(namespace, pods)
        if not remains.empty:
            return remains
        return await self._delete_all(namespace, [s for s in self._served if s.endpoint != PODS])

    async def _delete_all(self, namespace: str, served: Iterable[Served]) -> core.Remains:
        resources: dict[str, int] = {}
        finalizers: dict[str, int] = {}
        failures: list[str] = []
        for each in served:
            try:
                left = await self._delete_kind(namespace, each)
            except FencingTokenStale:
                raise
            except ApiError as error:
                failures.append(error.message)
                continue
            if left:
                resources[f"{each.endpoint.plural}.{each.endpoint.group}"] = len(left)
            for name, count in core.count_finalizers(left).items():
                finalizers[name] = finalizers.get(name, 0) + count
        return core.Remains(resources, finalizers, failures)

    async def _delete_kind(self, namespace: str, served: Served) -> list[Object]:
        """What is left of one resource after it was told to go."""
        endpoint = served.endpoint
        present = (await self._client.list(endpoint, namespace)).items
        alive = [obj for obj in present if not is_deleting(obj)]
        if not present:
            return []
        if alive and "deletecollection" in served.verbs:
            options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": BACKGROUND}
            await self._client.request("DELETE", endpoint.path(namespace), body=options)
        else:
            for obj in alive:
                await self._delete(endpoint, obj)
        return (await self._client.list(endpoint, namespace)).items

    async def _delete(self, endpoint: Endpoint, obj: Object) -> None:
        metadata = obj["metadata"]
        try:
            await self._client.delete(
                endpoint,
                metadata["name"],
                metadata["namespace"],
                uid=metadata["uid"],
                propagation=BACKGROUND,
            )
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    # The namespace itself -------------------------------------------------------------------

    async def _finish(self, namespace: Object) -> None:
        """Take our finalizer out of spec.finalizers; with the last one the namespace goes."""
        spec = section(namespace, "spec")
        left = [name for name in items(spec, "finalizers") if name != core.FINALIZER]
        finished = namespace | {"spec": spec | {"finalizers": left}}
        await self._client.update(NAMESPACES, finished, subresource="finalize")
        log.info("namespace_emptied", namespace=namespace["metadata"]["name"])

    async def _report(self, namespace: Object, remains: core.Remains) -> None:
        status = core.status_of(namespace, remains, now=self._clock.wall())
        if status != section(namespace, "status"):
            await self._namespaces.update_status(namespace | {"status": status})
