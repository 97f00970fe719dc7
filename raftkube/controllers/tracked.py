"""One resource as a controller uses it: read from the cache, written through here, and never acted on
before the cache shows what was written.

A write's answer has a resourceVersion to wait for; a delete that is answered with a bare Status has none,
so until its event comes the object is shown as being deleted.
Source: Kubernetes 1.36's workload controllers, which wait in the same way.
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.api.status import ApiError
from raftkube.api.timestamps import rfc3339
from raftkube.client.cache import IndexFunction
from raftkube.client.endpoints import Endpoint, Object, Objects, object_key
from raftkube.client.informer import Handler, Informer
from raftkube.client.rest import RestClient
from raftkube.controllers.core.owners import controller_of, is_deleting

ORPHANS: Final = "orphans"


def _orphans(obj: Object) -> list[str]:
    """The namespace of what nobody controls."""
    return [] if controller_of(obj) else [str(obj["metadata"].get("namespace") or "")]


EXTRA_INDEXES: Final[dict[str, IndexFunction]] = {ORPHANS: _orphans}


class Tracked:
    """Objects are shared: copy before changing one. Writes raise ApiError."""

    def __init__(self, client: RestClient, informer: Informer) -> None:
        self.client = client
        self.informer = informer
        self.endpoint: Endpoint = informer.endpoint
        self._deleted: dict[str, None] = {}  # uids that we deleted and that the cache still shows alive
        informer.on_change(self._forget_deleted)

    # Reading --------------------------------------------------------------------------------

    def get_key(self, key: str) -> Object | None:
        """The object of this `object_key`."""
        obj = self.informer.get_key(key)
        return None if obj is None else self._seen(obj)

    def get(self, name: str, namespace: str = "") -> Object | None:
        """The object of this name."""
        return self.get_key(f"{namespace}/{name}" if namespace else name)

    def list(self) -> Objects:
        """All objects."""
        return [self._seen(obj) for obj in self.informer.list()]

    def by_index(self, index: str, value: str) -> Objects:
        """The objects for which this index has this value."""
        return [self._seen(obj) for obj in self.informer.by_index(index, value)]

    def on_change(self, handler: Handler) -> None:
        """Call `handler(old, new)` for each change, and for what is there already."""
        self.informer.on_change(handler)

    async def caught_up(self) -> None:
        """Wait until the cache shows all our writes."""
        await self.informer.wait_for_writes()

    def wrote(self, obj: Object) -> None:
        """An object that we know to be stored: the cache must show it before we go on."""
        self.informer.wrote(obj)

    # Writing --------------------------------------------------------------------------------

    async def create(self, obj: Object) -> Object:
        """The object as stored."""
        return self._noted(await self.client.create(self.endpoint, obj))

    async def update(self, obj: Object) -> Object:
        """Replace; 409 if it changed meanwhile."""
        return self._noted(await self.client.update(self.endpoint, obj))

    async def update_status(self, obj: Object) -> Object:
        """Replace the status; 409 if it changed meanwhile."""
        return self._noted(await self.client.update_status(self.endpoint, obj))

    async def patch(self, obj: Object, patch: Any, *, subresource: str = "") -> Object:
        """Merge `patch` into the object of this name."""
        metadata = obj["metadata"]
        namespace = str(metadata.get("namespace") or "")
        return self._noted(
            await self.client.patch(
                self.endpoint, metadata["name"], patch, namespace, subresource=subresource
            )
        )

    async def delete(
        self,
        obj: Object,
        *,
        propagation: str = "",
        grace_period_s: int | None = None,
    ) -> None:
        """Delete exactly this object, if it still is in the state that the decision was made on (else 409);
        that it is gone already is fine."""
        metadata = obj["metadata"]
        try:
            answer = await self.client.delete(
                self.endpoint,
                metadata["name"],
                str(metadata.get("namespace") or ""),
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"],
                propagation=propagation,
                grace_period_s=grace_period_s,
            )
        except ApiError as error:
            if error.code != 404:
                raise
            answer = {"kind": "Status"}
        if answer.get("kind") == "Status":
            self._remember_deleted(obj)
        else:
            self._noted(answer)

    async def read(self, obj: Object) -> Object | None:
        """This very object (by uid), fresh from the server; None if it is gone."""
        metadata = obj["metadata"]
        found = await self.find(metadata["name"], str(metadata.get("namespace") or ""))
        return found if found is not None and found["metadata"]["uid"] == metadata["uid"] else None

    async def find(self, name: str, namespace: str = "") -> Object | None:
        """The object of this name, fresh from the server."""
        try:
            return await self.client.get(self.endpoint, name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    # Own writes -----------------------------------------------------------------------------

    def _noted(self, obj: Object) -> Object:
        self.informer.wrote(obj)
        return obj

    def _remember_deleted(self, obj: Object) -> None:
        cached = self.informer.get_key(object_key(obj))
        uid = obj["metadata"]["uid"]
        if cached is not None and cached["metadata"]["uid"] == uid and not is_deleting(cached):
            self._deleted[uid] = None

    def _forget_deleted(self, old: Object | None, new: Object | None) -> None:
        if self._deleted and old is not None and (new is None or is_deleting(new)):
            self._deleted.pop(old["metadata"]["uid"], None)

    def _seen(self, obj: Object) -> Object:
        if not self._deleted or obj["metadata"]["uid"] not in self._deleted:
            return obj
        return obj | {"metadata": obj["metadata"] | {"deletionTimestamp": rfc3339(0.0)}}
