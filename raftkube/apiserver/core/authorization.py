"""Who may do what: a fixed table of the control plane's own identities.

Every other identity is refused. The rules of the components follow upstream's bootstrap policy
(plugin/pkg/auth/authorizer/rbac/bootstrappolicy), narrowed to what raftkube's components do:

* `system:masters` may do everything.
* `system:kube-scheduler` reads pods and nodes, binds pods, reports their status, deletes preempted ones,
  writes events and its own Lease.
* `system:kube-controller-manager` runs all controllers under one identity: it reads and removes anything
  (garbage collection, namespace deletion), writes the workloads, and its own Lease.
* `system:nodes`, for a node named X (and X-0, X-1, … that its kubelet may simulate): its own Node and node
  Lease, the pods of the cluster to read, the status of pods and their removal (the server checks that they
  are bound to X), the ConfigMaps and Secrets that those pods name, and events.
* Anyone at all, without a certificate too, may read health, version and discovery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from raftkube.api.status import ApiError, forbidden
from raftkube.apiserver.core.request_info import RequestInfo

ANONYMOUS: Final = "system:anonymous"
MASTERS: Final = "system:masters"
NODES: Final = "system:nodes"
NODE_USER_PREFIX: Final = "system:node:"
OWN_NODE: Final = "{node}"
SCHEDULER: Final = "system:kube-scheduler"
CONTROLLER_MANAGER: Final = "system:kube-controller-manager"


@dataclass(frozen=True, slots=True)
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        """The node that this is the kubelet of; "" for all others."""
        if NODES in self.groups and self.name.startswith(NODE_USER_PREFIX):
            return self.name.removeprefix(NODE_USER_PREFIX)
        return ""

    def owns_node(self, name: str) -> bool:
        """Whether `name` is this kubelet's node: itself, or NAME-0, NAME-1, … that it simulates."""
        node = self.node
        suffix = name.removeprefix(f"{node}-")
        return bool(node) and (name == node or (suffix != name and suffix.isdecimal()))


@dataclass(frozen=True, slots=True)
class Rule:
    """Grants verbs on resources (`pods`, `pods/status`; "*" for all) of groups; names () means any, and
    OWN_NODE stands for the nodes of the user; namespace "" means any."""

    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]
    names: tuple[str, ...] = ()
    namespace: str = ""

    def allows(self, user: User, info: RequestInfo) -> bool:
        """Whether this rule grants the request."""
        full = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        return (
            _has(self.verbs, info.verb)
            and _has(self.groups, info.group)
            and _has(self.resources, full)
            and self.namespace in ("", info.namespace)
            and (not self.names or any(_names(name, user, info.name) for name in self.names))
        )


def _names(granted: str, user: User, wanted: str) -> bool:
    return user.owns_node(wanted) if granted == OWN_NODE else granted == wanted


def _has(granted: frozenset[str], wanted: str) -> bool:
    return wanted in granted or "*" in granted


def _rule(
    verbs: str, groups: str, resources: str, *, names: tuple[str, ...] = (), namespace: str = ""
) -> Rule:
    """groups: "core" for the group without a name."""
    return Rule(
        frozenset(verbs.split()),
        frozenset("" if group == "core" else group for group in groups.split()),
        frozenset(resources.split()),
        names,
        namespace,
    )


_READ: Final = "get list watch"
_EVENTS: Final = _rule("create patch update", "core events.k8s.io", "events")


def _election(lease: str) -> tuple[Rule, ...]:
    """A control identity's own Lease. A create names no object in its path, hence the first rule."""
    return (
        _rule("create", "coordination.k8s.io", "leases", namespace="kube-system"),
        _rule(_READ, "coordination.k8s.io", "leases"),
        _rule(
            "update patch delete", "coordination.k8s.io", "leases", names=(lease,), namespace="kube-system"
        ),
    )


RULES: Final[dict[str, tuple[Rule, ...]]] = {
    SCHEDULER: (
        *_election("kube-scheduler"),
        _EVENTS,
        _rule(_READ, "core", "nodes namespaces services persistentvolumes persistentvolumeclaims"),
        _rule(_READ, "apps", "replicasets statefulsets deployments"),
        _rule(f"{_READ} delete", "core", "pods"),
        _rule("create", "core", "pods/binding bindings"),
        _rule("update patch", "core", "pods/status"),
    ),
    CONTROLLER_MANAGER: (
        *_election("kube-controller-manager"),
        _EVENTS,
        _rule(f"{_READ} delete deletecollection update patch", "*", "*"),
        _rule("create", "core", "pods serviceaccounts configmaps endpoints services"),
        _rule("create", "apps", "replicasets"),
        _rule("update patch", "*", "namespaces/finalize namespaces/status pods/status nodes/status "
              "deployments/status replicasets/status deployments/scale replicasets/scale"),
        _rule("create", "core", "pods/eviction"),
        _rule("create", "discovery.k8s.io", "endpointslices"),
    ),
    NODES: (
        _EVENTS,
        _rule(f"{_READ} create", "core", "nodes"),
        _rule("update patch", "core", "nodes nodes/status", names=(OWN_NODE,)),
        _rule(f"{_READ} delete", "core", "pods"),
        _rule("update patch", "core", "pods/status"),
        _rule(_READ, "core", "services namespaces"),
        _rule("get list watch", "core", "configmaps secrets serviceaccounts"),
        _rule("create", "coordination.k8s.io", "leases", namespace="kube-node-lease"),
        _rule("get list watch update patch delete", "coordination.k8s.io", "leases", names=(OWN_NODE,),
              namespace="kube-node-lease"),
    ),
}  # fmt: skip

_PUBLIC: Final = frozenset(("/healthz", "/livez", "/readyz", "/version", "/api", "/apis", "/openapi/v3"))
_PUBLIC_PREFIXES: Final = ("/healthz/", "/livez/", "/readyz/", "/api/", "/apis/", "/openapi/v3/", "/openapi/")


def authorize(user: User, info: RequestInfo) -> None:
    """Raise ApiError 403, in upstream's words, unless `user` may do this."""
    if MASTERS in user.groups:
        return
    if not info.is_resource:
        if info.verb in ("get", "head") and _public(info.path):
            return
        path = f'User "{user.name}" cannot {info.verb} path "{info.path}"'
        raise ApiError(403, "Forbidden", f"forbidden: {path}")
    identities = [user.name, *((NODES,) if user.node else ())]
    if any(rule.allows(user, info) for name in identities for rule in RULES.get(name, ())):
        return
    raise _forbidden(user, info)


def _public(path: str) -> bool:
    return path in _PUBLIC or path.startswith(_PUBLIC_PREFIXES)


def _forbidden(user: User, info: RequestInfo) -> ApiError:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {info.verb} resource "{resource}" in API group "{info.group}" {where}'
    return forbidden(info.group, info.resource, info.name, why)
