"""Every namespace has a ServiceAccount `default` and a ConfigMap with the cluster's CA.

Sources: k8s.io/kubernetes/pkg/controller/serviceaccount, pkg/controller/certificates/rootcacertpublisher.
"""

from __future__ import annotations

from typing import Final

from raftkube.api.objects import section
from raftkube.api.status import ApiError
from raftkube.client.endpoints import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS, Endpoint, Object, object_key
from raftkube.client.work_queue import WorkQueue
from raftkube.controllers.core.owners import is_deleting
from raftkube.controllers.runtime import Context, namespace_ends

ROOT_CA_NAME: Final = "kube-root-ca.crt"
_ROOT_CA_NOTE: Final = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such "
    "as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across "
    "distributions of Kubernetes clusters."
)


class _PerNamespace:
    """One object of one name in each namespace. Keys are names of namespaces."""

    name = ""

    def __init__(self, context: Context, endpoint: Endpoint, wanted: Object) -> None:
        self.queue: WorkQueue[str] = WorkQueue(context.clock)
        self._wanted = wanted
        self._namespaces = context.tracked(NAMESPACES)
        self._objects = context.tracked(endpoint)
        self._namespaces.on_change(self._namespace_changed)
        self._objects.on_change(self._object_changed)

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and not is_deleting(new):
            self.queue.add(object_key(new))

    def _object_changed(self, old: Object | None, new: Object | None) -> None:
        changed = old or new
        if changed is not None and changed["metadata"]["name"] == self._wanted["metadata"]["name"]:
            self.queue.add(changed["metadata"]["namespace"])

    async def reconcile(self, key: str) -> None:
        """Create it where it is missing, mend it where it differs."""
        await self._objects.caught_up()
        namespace = self._namespaces.get(key)
        if namespace is None or is_deleting(namespace):
            return
        found = self._objects.get(self._wanted["metadata"]["name"], key)
        if found is None:
            await self._create(key)
        elif not is_deleting(found) and self._differs(found):
            await self._objects.update(found | {"data": self._wanted["data"]})

    def _differs(self, found: Object) -> bool:
        return "data" in self._wanted and section(found, "data") != self._wanted["data"]

    async def _create(self, namespace: str) -> None:
        metadata = self._wanted["metadata"] | {"namespace": namespace}
        try:
            await self._objects.create(self._wanted | {"metadata": metadata})
        except ApiError as error:
            if error.reason != "AlreadyExists" and not namespace_ends(error) and error.code != 404:
                raise


class ServiceAccountController(_PerNamespace):
    """The ServiceAccount `default`."""

    name = "serviceaccount-controller"

    def __init__(self, context: Context) -> None:
        wanted = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        super().__init__(context, SERVICE_ACCOUNTS, wanted)


class RootCaPublisher(_PerNamespace):
    """The ConfigMap kube-root-ca.crt."""

    name = "root-ca-certificate-publisher-controller"

    def __init__(self, context: Context, ca_pem: str) -> None:
        metadata = {"name": ROOT_CA_NAME, "annotations": {"kubernetes.io/description": _ROOT_CA_NOTE}}
        wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": ca_pem}}
        super().__init__(context, CONFIG_MAPS, wanted)
