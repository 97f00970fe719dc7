"""What users do to a simulated cluster: workloads that are made, scaled, rolled out, back and away; pods and
nodes that are deleted; namespaces that come and go. Every operation and its answer is written down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from chaos.checkers.objects import DEPLOYMENTS, NODES, PODS, REPLICA_SETS, Json, Objects, owner_refs
from chaos.sim.cluster_manifests import deployment, ending_pod, pod_template, replica_set
from chaos.sim.cluster_world import ClusterWorld
from chaos.sim.trio_private import HOST
from raftkube.api.status import ApiError
from raftkube.client import endpoints as at
from raftkube.client.endpoints import Endpoint
from raftkube.client.errors import IndefiniteApiError
from raftkube.client.rest import RestClient
from raftkube.rng import Rng, seeded_rng

_WORKLOADS: Final = (("default", "web-0"), ("default", "web-1"), ("team-a", "web-2"))
_SETS: Final = (("default", "rs-0"),)
_TEAMS: Final = ("team-a", "team-b")
_REPLICAS_MAX: Final = 4
_SET_REPLICAS_MAX: Final = 2
_BARE_MAX: Final = 2


Send = Callable[[RestClient], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Load:
    """users: how many act; pause_s: the mean time between two acts of one."""

    users: int = 2
    pause_s: float = 3.0


class User:
    """One who acts, with a client of its own. It chooses by what the log holds (`objects`)."""

    def __init__(self, world: ClusterWorld, objects: Objects, number: int) -> None:
        self._world, self._objects, self._number = world, objects, number
        self._client: RestClient = world.user(f"user-{number}")
        self._rng: Rng = seeded_rng(f"load-{world.seed}-{number}")
        self._count = 0
        acts: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (5, self._make_workload), (6, self._scale), (6, self._new_image), (2, self._pause),
            (2, self._roll_back), (2, self._delete_workload), (4, self._delete_pod), (3, self._bare_pod),
            (2, self._set), (1, self._drain), (2, self._uncordon), (1, self._remove_node),
            (2, self._make_team), (1, self._delete_team),
        ]  # fmt: skip
        self._weights = [weight for weight, _ in acts]
        self._acts = [act for _, act in acts]

    async def run(self, pause_s: float) -> None:
        """Act until cancelled."""
        HOST.set(f"user-{self._number}")
        await self._make_workload()
        while True:
            await trio.sleep(self._rng.uniform(0.0, 2 * pause_s))
            await self._rng.choices(self._acts, self._weights)[0]()

    async def do(self, verb: str, endpoint: Endpoint, namespace: str, name: str, send: Send) -> None:
        """Carry out one operation, and write it down with its answer."""
        self._count += 1
        recorder = self._world.recorder
        full_name = f"{namespace}/{name}" if namespace else name
        key = f"/registry/{endpoint.group or 'core'}/{endpoint.plural}/{full_name}"
        record: Json = {
            "type": "op", "client": self._number, "id": self._count, "kind": "user",
            "request": {"verb": verb, "name": full_name, "key": key},
            "call_ns": recorder.now_ns(), "outcome": "ok", "error": None,
        }  # fmt: skip
        try:
            record["response"] = _told(verb, await send(self._client))
        except ApiError as error:
            record["outcome"] = "unknown" if isinstance(error, IndefiniteApiError) else "fail"
            record["error"] = error.reason
        record["return_ns"] = recorder.now_ns()
        recorder.write(record)

    # Workloads ------------------------------------------------------------------------------

    async def _make_workload(self) -> None:
        namespace, name = self._rng.choice(_WORKLOADS)
        replicas, recreate = self._rng.randint(1, _REPLICAS_MAX), self._rng.random() < 0.15
        body = deployment(namespace, name, replicas, self._image(), recreate=recreate)
        await self.do("create", at.DEPLOYMENTS, namespace, name, lambda c: c.create(at.DEPLOYMENTS, body))

    def _image(self) -> str:
        return f"v{self._rng.randint(1, 9)}"

    async def _scale(self) -> None:
        namespace, name = self._rng.choice(_WORKLOADS)
        patch = {"spec": {"replicas": self._rng.randint(0, _REPLICAS_MAX)}}
        await self._patch("scale", at.DEPLOYMENTS, namespace, name, patch, subresource="scale")

    async def _patch(
        self, verb: str, endpoint: Endpoint, namespace: str, name: str, patch: Json, *, subresource: str = ""
    ) -> None:  # fmt: skip
        await self.do(
            verb, endpoint, namespace, name,
            lambda client: client.patch(endpoint, name, patch, namespace, subresource=subresource),
        )  # fmt: skip

    async def _new_image(self) -> None:
        namespace, name = self._rng.choice(_WORKLOADS)
        patch = {"spec": {"template": pod_template(name, self._image())}}
        await self._patch("set image", at.DEPLOYMENTS, namespace, name, patch)

    async def _pause(self) -> None:
        namespace, name = self._rng.choice(_WORKLOADS)
        paused = self._rng.random() < 0.5
        await self._patch("pause", at.DEPLOYMENTS, namespace, name, {"spec": {"paused": paused or None}})

    async def _roll_back(self) -> None:
        """To the template of a ReplicaSet that is still there, as `kubectl rollout undo` does."""
        namespace, name = self._rng.choice(_WORKLOADS)
        held = [
            obj["spec"]["template"]
            for key, obj in self._objects.of(REPLICA_SETS)
            if key.startswith(f"/registry/{REPLICA_SETS}/{namespace}/{name}-")
        ]
        if held:
            old = self._rng.choice(held)
            labels = {k: v for k, v in old["metadata"]["labels"].items() if k != "pod-template-hash"}
            patch = {"spec": {"template": {"metadata": {"labels": labels}, "spec": old["spec"]}}}
            await self._patch("undo", at.DEPLOYMENTS, namespace, name, patch)

    async def _delete_workload(self) -> None:
        namespace, name = self._rng.choice(_WORKLOADS)
        how = self._rng.choice(("Background", "Foreground", "Background", "Orphan"))
        await self._delete(at.DEPLOYMENTS, namespace, name, propagation=how)

    async def _delete(self, endpoint: Endpoint, namespace: str, name: str, *, propagation: str = "") -> None:
        await self.do(
            f"delete {propagation}".strip(), endpoint, namespace, name,
            lambda client: client.delete(endpoint, name, namespace, propagation=propagation),
        )  # fmt: skip

    async def _set(self) -> None:
        """A ReplicaSet of its own: made, scaled or deleted."""
        namespace, name = self._rng.choice(_SETS)
        size = self._rng.randint(0, _SET_REPLICAS_MAX)
        if f"/registry/{REPLICA_SETS}/{namespace}/{name}" not in self._objects.by_key:
            body, kind = replica_set(namespace, name, size), at.REPLICA_SETS
            await self.do("create", kind, namespace, name, lambda client: client.create(kind, body))
        elif self._rng.random() < 0.7:
            await self._patch("scale", at.REPLICA_SETS, namespace, name, {"spec": {"replicas": size}})
        else:
            await self._delete(at.REPLICA_SETS, namespace, name, propagation="Background")

    # Pods, nodes, namespaces ----------------------------------------------------------------

    async def _delete_pod(self) -> None:
        pods = [obj["metadata"] for _, obj in self._objects.of(PODS)]
        if pods:
            chosen = self._rng.choice(pods)
            await self._delete(at.PODS, chosen["namespace"], chosen["name"])

    async def _bare_pod(self) -> None:
        """One that nobody controls: it ends by itself, or is deleted when there are enough."""
        bare = [obj["metadata"] for _, obj in self._objects.of(PODS) if not owner_refs(obj)]
        if len(bare) >= _BARE_MAX:
            chosen = self._rng.choice(bare)
            await self._delete(at.PODS, chosen["namespace"], chosen["name"])
            return
        name = f"bare-{self._number}-{self._count}"
        run_s, exit_code = self._rng.randint(1, 9), self._rng.choice("01")
        body = ending_pod("default", name, run_s=run_s, exit_code=exit_code)
        await self.do("create", at.PODS, "default", name, lambda client: client.create(at.PODS, body))

    def _nodes(self) -> list[str]:
        return [obj["metadata"]["name"] for _, obj in self._objects.of(NODES)]

    async def _drain(self) -> None:
        """Cordon a node and delete its pods."""
        if not (nodes := self._nodes()):
            return
        node = self._rng.choice(nodes)
        await self._patch("cordon", at.NODES, "", node, {"spec": {"unschedulable": True}})
        for pod in list(self._objects.pods_on(node)):
            await self._delete(at.PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])

    async def _uncordon(self) -> None:
        for key, obj in list(self._objects.of(NODES)):
            if obj["spec"].get("unschedulable"):
                node = key.rsplit("/", 1)[1]
                await self._patch("uncordon", at.NODES, "", node, {"spec": {"unschedulable": None}})

    async def _remove_node(self) -> None:
        """A kubelet's machine goes away, and its nodes are deleted; later it comes back."""
        kubelet = self._rng.choice(self._world.names("kubelet"))
        if len(self._world.names("kubelet")) < 2 or not self._world.hosts[kubelet].running:
            return
        self._world.strike(kubelet)
        await trio.sleep(self._rng.uniform(0.0, 20.0))
        for node in self._nodes():
            if node.rpartition("-")[0] == kubelet:
                await self._delete(at.NODES, "", node)
        await trio.sleep(self._rng.uniform(0.0, 20.0))
        self._world.start(kubelet)

    async def _make_team(self) -> None:
        name = self._rng.choice(_TEAMS)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await self.do("create", at.NAMESPACES, "", name, lambda client: client.create(at.NAMESPACES, body))

    async def _delete_team(self) -> None:
        await self._delete(at.NAMESPACES, "", self._rng.choice(_TEAMS))

    # At the end -----------------------------------------------------------------------------

    async def tidy(self) -> None:
        """Undo what would keep the cluster from ever being at rest: paused rollouts, cordoned nodes,
        ReplicaSets that were left without their Deployment."""
        await self._uncordon()
        for key, obj in list(self._objects.of(DEPLOYMENTS)):
            if obj["spec"].get("paused"):
                namespace, name = key.split("/")[-2:]
                await self._patch("resume", at.DEPLOYMENTS, namespace, name, {"spec": {"paused": None}})
        for key, obj in list(self._objects.of(REPLICA_SETS)):
            namespace, name = key.split("/")[-2:]
            if not owner_refs(obj) and (namespace, name) not in _SETS:
                await self._delete(at.REPLICA_SETS, namespace, name, propagation="Background")


def _told(verb: str, answer: Json) -> Json:
    """Of an answer that is the object as stored: where it is in the log."""
    if verb.startswith("delete") or answer.get("kind") in ("Status", "Scale"):
        return {}
    return {name: answer["metadata"].get(name) for name in ("uid", "resourceVersion")}
