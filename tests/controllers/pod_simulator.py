"""A naive cluster of one Deployment: ReplicaSet rounds, pods that become ready, and the rules to check.

Deliberately simple: dictionaries, a clock that is an integer, no caches. It carries out what the plans say.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from raftkube.api.timestamps import rfc3339
from raftkube.controllers.core import deployment as deployments
from raftkube.controllers.core import pods, replica_set

Object = dict[str, Any]


def make_deployment(replicas: int, **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web", "namespace": "default", "uid": "deployment-1", "resourceVersion": "1",
            "generation": 1,
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:0"}]},
            },
            "strategy": {"type": "RollingUpdate"},
        } | spec,
    }  # fmt: skip


@dataclass
class World:
    deployment: Object
    sets: dict[str, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    now: int = 1_000_000
    made: int = 0

    # What people do -------------------------------------------------------------------------

    def edit(self, **spec: Any) -> None:
        self.deployment["spec"] |= spec
        self.deployment["metadata"]["generation"] += 1

    def set_image(self, image: str) -> None:
        template = copy.deepcopy(self.deployment["spec"]["template"])
        template["spec"]["containers"][0]["image"] = image
        self.edit(template=template)

    # What controllers do --------------------------------------------------------------------

    def deployment_round(self) -> list[deployments.Action]:
        owned = {rs["metadata"]["uid"]: self.pods_of(rs) for rs in self.sets.values()}
        before = copy.deepcopy((self.deployment, self.sets))
        observed = deployments.Observed(self.deployment, list(self.sets.values()), owned)
        actions = deployments.plan(observed, now=self.now)
        assert before == (self.deployment, self.sets), "a plan changed what it observed"
        for action in actions:
            self.carry_out(action)
        return actions

    def carry_out(self, action: deployments.Action) -> None:
        match action:
            case deployments.Create(rs, event):
                self.events += [event] if event else []
                self.create_set(rs)
            case deployments.Update(rs, event):
                self.events += [event] if event else []
                self.update_set(rs)
            case deployments.Delete(rs):
                del self.sets[rs["metadata"]["name"]]
            case deployments.WriteStatus(changed):
                self.deployment = copy.deepcopy(changed)

    def create_set(self, rs: Object) -> None:
        self.made += 1
        name = rs["metadata"]["name"]
        assert name not in self.sets, f"{name} was created twice"
        made = copy.deepcopy(rs)
        made["metadata"] |= {
            "uid": f"rs-{self.made}", "generation": 1, "creationTimestamp": rfc3339(self.now),
        }  # fmt: skip
        self.sets[name] = made

    def update_set(self, rs: Object) -> None:
        old = self.sets[rs["metadata"]["name"]]
        new = copy.deepcopy(rs)
        new["status"] = old.get("status", {})
        new["metadata"]["generation"] = old["metadata"]["generation"] + (new["spec"] != old["spec"])
        self.sets[rs["metadata"]["name"]] = new

    def replica_set_round(self, rs: Object, deletes_max: int = 1_000) -> None:
        """deletes_max: so many deletes succeed, the others are refused this time."""
        planned = replica_set.plan(replica_set.Observed(rs, self.pods_of(rs)), now=self.now)
        for _ in range(planned.create):
            self.made += 1
            pod = replica_set.new_pod(rs, f"pod-{self.made}")
            pod["metadata"] |= {"uid": f"pod-{self.made}", "creationTimestamp": rfc3339(self.now)}
            self.pods[pod["metadata"]["name"]] = pod
        for pod in planned.delete[:deletes_max]:
            del self.pods[pod["metadata"]["name"]]
        rs["status"] = replica_set.next_status(rs, planned, "", now=self.now)

    # What kubelets do -----------------------------------------------------------------------

    def make_ready(self, pod: Object) -> None:
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(self.now)}
        pod["status"] = {"phase": "Running", "conditions": [ready]}

    # What is checked ------------------------------------------------------------------------

    def pods_of(self, rs: Object) -> list[Object]:
        uid = rs["metadata"]["uid"]
        return [p for p in self.pods.values() if p["metadata"]["ownerReferences"][0]["uid"] == uid]

    def unready(self) -> list[Object]:
        return [pod for pod in self.pods.values() if not pods.is_ready(pod)]

    def ready_count(self) -> int:
        return len(self.pods) - len(self.unready())

    def settle(self, rounds: int = 200) -> int:
        """Let everything run until a whole turn changes nothing; the number of turns."""
        for turn in range(rounds):
            before = copy.deepcopy((self.deployment, self.sets, self.pods))
            self.now += 1
            self.deployment_round()
            for rs in list(self.sets.values()):
                self.replica_set_round(rs)
            for pod in self.unready():
                self.make_ready(pod)
            if before == (self.deployment, self.sets, self.pods):
                return turn
        raise AssertionError(f"it did not settle in {rounds} turns")
