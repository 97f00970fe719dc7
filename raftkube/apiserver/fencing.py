"""Fenced leaders: a control identity writes only while it holds its Lease.

The token is the create revision of the Lease's key. It comes with each mutating request and is compared
in the same store transaction as the write, so a deposed leader cannot write, however late its request
arrives. Exempt is what elects: the identity's operations on its own Lease.

Fenced identities are the scheduler and the controller manager, and whoever a Lease names in its
annotation `raftkube.dev/fences` (seen through the watch cache: naming one takes effect within its lag).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from raftkube.api.registry import find
from raftkube.api.status import ApiError, bad_request, conflict
from raftkube.apiserver.cache import ResourceCache
from raftkube.apiserver.core.authorization import CONTROLLER_MANAGER, SCHEDULER, User
from raftkube.apiserver.core.request_info import RequestInfo
from raftkube.apiserver.stored import FENCES_ANNOTATION, Stored
from raftkube.apiserver.transaction import Check
from raftkube.wire.store import Compare, KeyValue

TOKEN_HEADER: Final = "raftkube-fencing-token"
STALE: Final = "FencingTokenStale"
_MUTATING: Final = frozenset(("create", "update", "patch", "delete", "deletecollection"))
LeaseName = tuple[str, str]  # namespace, name

_BUILT_IN: Final[Mapping[str, LeaseName]] = {
    SCHEDULER: ("kube-system", "kube-scheduler"),
    CONTROLLER_MANAGER: ("kube-system", "kube-controller-manager"),
}


@dataclass(frozen=True, slots=True)
class Fence:
    """The Lease that must still be the one that `token` says."""

    namespace: str
    name: str
    token: int

    def check(self) -> Check:
        """The comparison for every transaction of the request."""
        compare = Compare(lease_key(self.namespace, self.name), "create", "=", self.token)
        return Check(compare, self._refuse)

    def _refuse(self, found: KeyValue | None) -> ApiError:
        now = f"its token is {found.create_revision}" if found else "it does not exist"
        return refused(self.namespace, self.name, f"the fencing token {self.token} is stale: {now}")


def lease_key(namespace: str, name: str) -> bytes:
    """Of a Lease object."""
    resource = find("coordination.k8s.io", "v1", "leases")
    assert resource is not None
    return resource.key(namespace, name).encode()


def refused(namespace: str, name: str, why: str) -> ApiError:
    """409 that names the Lease; clients stop leading on it."""
    text = f"lease {namespace}/{name}: {why}"
    causes = [{"reason": STALE, "message": text, "field": "metadata.annotations"}]
    return conflict("coordination.k8s.io", "leases", name, text, causes=causes)


class Fences:
    """Which user is fenced by which Lease."""

    def __init__(self, leases: ResourceCache) -> None:
        self._named: dict[str, LeaseName] = {}
        leases.listeners.append(self._lease_changed)

    def of(
        self, user: User, info: RequestInfo, headers: Mapping[str, str], *, created: str = ""
    ) -> Fence | None:
        """The fence of a request; None if it needs none. created: the name of the object in a create's body.

        Raises ApiError: 409 a control identity without a token, 400 a token that is none.
        """
        lease = _BUILT_IN.get(user.name) or self._named.get(user.name)
        if lease is None or info.verb not in _MUTATING or _elects(info, created, lease):
            return None
        text = headers.get(TOKEN_HEADER, "")
        if not text:
            raise refused(*lease, f'{user.name} must send its fencing token in the header "{TOKEN_HEADER}"')
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) > 0):
            raise bad_request(f'the header "{TOKEN_HEADER}" must be the create revision of a Lease')
        return Fence(*lease, int(text))

    def _lease_changed(self, old: Stored | None, new: Stored | None) -> None:
        for stored in (old, new):
            fenced = _fenced_users(stored)
            for user in fenced:
                self._named.pop(user, None)
        if new is not None:
            self._named.update(dict.fromkeys(_fenced_users(new), (new.namespace, new.name)))


def _elects(info: RequestInfo, created: str, lease: LeaseName) -> bool:
    """Whether the request is about the identity's own Lease."""
    about = (info.group, info.resource, info.namespace, info.name or created)
    return about == ("coordination.k8s.io", "leases", *lease)


def _fenced_users(lease: Stored | None) -> list[str]:
    if lease is None:
        return []
    text = (lease.obj["metadata"].get("annotations") or {}).get(FENCES_ANNOTATION) or ""
    return [name.strip() for name in text.split(",") if name.strip()]
