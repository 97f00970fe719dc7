"""Small histories of objects, put together by hand; used by the tests here."""

from __future__ import annotations

from typing import Any

import orjson

from chaos.checkers.control_loops import judge_control_loops
from chaos.checkers.history import FORMAT, history_of
from chaos.checkers.verdict import Verdict

Json = dict[str, Any]
LEASE = "coordination.k8s.io/leases/kube-system/kube-controller-manager"
CONTROLLER_MANAGER = "system:kube-controller-manager"


class Story:
    """What was recorded. `put` and `delete` make the log, one revision each, and return it."""

    def __init__(self) -> None:
        self.records: list[Json] = [
            {"format": FORMAT, "world": "cluster"},
            {
                "type": "watch", "watch": 1, "key": "/registry/", "range_end": "/registry0",
                "start_revision": 1, "log": True,
            },
        ]  # fmt: skip
        self.revision = 0
        self._requests = 0

    def put(self, key: str, obj: Json) -> int:
        return self._event("put", key, orjson.dumps(obj).decode())

    def delete(self, key: str) -> int:
        return self._event("delete", key, None)

    def _event(self, kind: str, key: str, value: str | None) -> int:
        self.revision += 1
        self.records.append(
            {"type": "event", "watch": 1, "kind": kind, "key": f"/registry/{key}", "value": value,
             "revision": self.revision, "recv_ns": 0}
        )  # fmt: skip
        return self.revision

    def request(self, user: str, method: str, path: str, **more: Any) -> int:
        """An API server was asked; the number that writes name."""
        self._requests += 1
        request = {"server": "apiserver-1", "user": user, "method": method, "path": path, **more}
        if method == "DELETE":
            request.setdefault("preconditions", {})
        self._op("api", self._requests, request)
        return self._requests

    def write(self, api: int, key: str, *, revision: int | None, compared: int = 0) -> None:
        """What an API server sent to the store; without a revision, its answer is missing."""
        key = f"/registry/{key}"
        request = {"api": api, "compares": [[key, "mod", compared]], "puts": [key], "deletes": []}
        more = {"outcome": "unknown"} if revision is None else {"revision": revision}
        self._op("write", 0, request, **more)

    def user(self, key: str, answer: Json) -> None:
        request = {"verb": "create", "name": key.split("/", 2)[2], "key": f"/registry/{key}"}
        self._op("user", 0, request, response=answer)

    def _op(self, kind: str, number: int, request: Json, **more: Any) -> None:
        record = {
            "type": "op", "client": 0, "id": number, "kind": kind, "request": request, "outcome": "ok",
            "call_ns": 0, "return_ns": 1,
        }  # fmt: skip
        self.records.append(record | more)

    def seen(self, change: str, revision: int, **more: Any) -> None:
        self.observe(
            "seen", watch="w", prefix="/registry/core/pods/", change=change, revision=revision, **more
        )

    def observe(self, kind: str, **more: Any) -> None:
        self.records.append({"type": "observe", "kind": kind, "time_ns": 0, **more})

    def judge(self) -> Verdict:
        """With an end, so that convergence is judged too."""
        self.observe("end", waited_s=60.0)
        return judge_control_loops(history_of(self.records))

    def broken(self) -> set[str]:
        """The invariants that do not hold."""
        return {violation.invariant for violation in self.judge().violations}


def obj(name: str, uid: str, *, owner: str = "", namespace: str = "default", **parts: Any) -> Json:
    """owner: the uid of its controller."""
    metadata: Json = {"name": name, "namespace": namespace, "uid": uid, **parts.pop("metadata", {})}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    return {"metadata": metadata, "spec": {}, **parts}


def pod(name: str, uid: str, *, node: str = "", owner: str = "", phase: str = "Running", **spec: Any) -> Json:
    ready = [{"type": "Ready", "status": "True"}]
    status = {"phase": phase, "conditions": ready}
    return obj(name, uid, owner=owner, spec={"nodeName": node, **spec}, status=status)


def replica_set(uid: str, replicas: int, *, generation: int = 1, observed: int = 1, owner: str = "") -> Json:
    status = {"observedGeneration": observed}
    status |= dict.fromkeys(("replicas", "readyReplicas", "availableReplicas"), replicas)
    return obj(
        uid, uid, owner=owner, metadata={"generation": generation}, spec={"replicas": replicas}, status=status
    )


def deployment(uid: str, replicas: int, *, surge: int = 1, generation: int = 1, observed: int = 1) -> Json:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge}}
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    return obj(
        uid, uid, metadata={"generation": generation}, spec={"replicas": replicas, "strategy": strategy},
        status={"observedGeneration": observed, **dict.fromkeys(counts, replicas)},
    )  # fmt: skip


def node(name: str, **allocatable: str) -> Json:
    conditions = [{"type": "Ready", "status": "True"}]
    return obj(name, f"uid of {name}", status={"allocatable": allocatable, "conditions": conditions})
