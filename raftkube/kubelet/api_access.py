"""What the loops ask of the API, over the REST client."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from raftkube.api.status import ApiError
from raftkube.client.endpoints import CONFIG_MAPS, LEASES, NODES, PODS, SECRETS
from raftkube.client.rest import RestClient
from raftkube.kubelet.core.environment import ConfigRef
from raftkube.kubelet.core.pods import Object, is_finished

_CONFLICTS_MAX: Final = 4


class ApiPods:
    """`PodWriter` and `ConfigSource`. All methods raise ApiError."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    async def write_status(self, pod: Object, status: Object) -> Object:
        for _ in range(_CONFLICTS_MAX):
            try:
                return await self._patch_status(pod, status)
            except ApiError as error:
                if error.code != 409:
                    raise
                now = await self._client.get(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"])
                same = now["metadata"]["uid"] == pod["metadata"]["uid"]
                if not same or (is_finished(now) and now["status"]["phase"] != status["phase"]):
                    raise  # it is another, or was ended by somebody else: what was seen of it is old
                pod = now
        return await self._patch_status(pod, status)

    async def _patch_status(self, pod: Object, status: Object) -> Object:
        """409 if somebody else changed the pod: one that was declared failed must not come to life again."""
        seen = pod["metadata"]
        metadata = {"uid": seen["uid"], "resourceVersion": seen["resourceVersion"]}
        patch = {"metadata": metadata, "status": status}
        return await self._client.patch(
            PODS, seen["name"], patch, seen["namespace"], type="strategic", subresource="status"
        )

    async def finish(self, pod: Object) -> None:
        metadata = pod["metadata"]
        await self._client.delete(
            PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"], grace_period_s=0
        )

    async def read(self, namespace: str, ref: ConfigRef) -> Mapping[str, str] | None:
        endpoint = CONFIG_MAPS if ref.kind == "configmap" else SECRETS
        try:
            obj = await self._client.get(endpoint, ref.name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        plain = obj.get("data") or {}
        encoded = obj.get("binaryData") or {}
        if ref.kind == "secret":
            plain, encoded = {}, plain
        return plain | {key: _text(value) for key, value in encoded.items()}


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode("utf-8", "surrogateescape")


class ApiNodes:
    """A node's own Node and Lease. All methods raise ApiError."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    async def register(self, node: Object) -> Object:
        """Create the Node; the one that stands there if it exists."""
        try:
            return await self._client.create(NODES, node)
        except ApiError as error:
            if error.code != 409:
                raise
        return await self._client.get(NODES, node["metadata"]["name"])

    async def patch(self, name: str, patch: Object, *, subresource: str = "") -> Object:
        """A strategic merge patch of the Node."""
        return await self._client.patch(NODES, name, patch, type="strategic", subresource=subresource)

    async def renew(self, lease: Object) -> Object:
        """Write the Lease as it is given: replaced if it has a resourceVersion, created if not."""
        if "resourceVersion" in lease["metadata"]:
            return await self._client.update(LEASES, lease)
        return await self._client.create(LEASES, lease)

    async def lease(self, namespace: str, name: str) -> Object | None:
        """The Lease, if it exists."""
        try:
            return await self._client.get(LEASES, name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
