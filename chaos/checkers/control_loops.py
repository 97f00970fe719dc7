"""Control loops, judged on the recorded log of all objects and on the requests that led to it.

What is recorded: the log (a complete watch of /registry/), operations of kind `api` (what an API server was
asked, by whom, with which fencing token and preconditions), `write` (what it sent to the store for which
`api`, and the revision), `user` (what users asked and were told), and observations: `seen` (what a watch of
the API showed), `peace` and `end` (faults stopped; the run was over), `bug` (an exception at a boundary).

Two promises are worded so that they hold for any order of events that a correct control plane can show:

* C3, when a control loop creates a pod: the live pods (neither deleted nor finished) that the ReplicaSet
  has then are at most its spec.replicas, as of some generation not older than status.observedGeneration;
  the controller says with it how much it had seen, and later sizes it may or may not have seen. The same
  for the pods of all ReplicaSets that a Deployment has made, with spec.replicas and the surge as of some
  generation that the Deployment's controller may have had in mind when it wrote a size that a ReplicaSet's
  controller may still act on. A Deployment that is being deleted resizes nothing any more, and is not
  judged. What was adopted is not counted: nobody chose it to be there.
* C5, when a pod is bound: what is bound to the node and not finished fits its allocatable.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from chaos.checkers.apiwrites import check_fencing, check_preconditions, check_tokens, check_user_writes
from chaos.checkers.history import History
from chaos.checkers.objects import (
    DEPLOYMENTS,
    LEASES,
    PODS,
    REPLICA_SETS,
    Change,
    Json,
    Objects,
    changes,
    controller_uid,
    generation_of,
    is_deleting,
    is_finished,
    is_live,
    name_of,
    observed_generation_of,
    pods_max,
    quantity,
    replicas_of,
    requests_of,
    uid_of,
)
from chaos.checkers.settled import orphans, unsettled
from chaos.checkers.shown import check_shown
from chaos.checkers.verdict import Verdict

INVARIANTS: Final = {
    "C1": "converges when faults stop: as many ready replicas as wanted, nothing terminating for ever",
    "C2": "a pod's spec.nodeName is written once",
    "C3": "live replicas are at most desired + surge at every revision",
    "C4": "what has lost its owners is collected",
    "C5": "no node is given more than it has",
    "C6": "control loops delete by uid and resourceVersion where a race is possible",
    "L3": "no write of a deposed leader takes effect",
    "L5": "a Lease has one holder at a time",
    "L6": "a fencing token is used by one process",
    "A1": "an acknowledged API write is in the log, at its resourceVersion",
    "A2": "a watch of the API shows every change once and in order",
    "A3": "no component meets an error that it did not foresee",
}


def judge_control_loops(history: History) -> Verdict:
    """The verdict over a history of the world `cluster`."""
    verdict = Verdict()
    bound, sizes, nodes, leases = _Bound(), _Sizes(), _Nodes(), _Leases()
    objects = Objects()
    for objects, change in changes(history):
        verdict.count("changes")
        bound.take(change, verdict)
        sizes.take(objects, change, verdict)
        nodes.take(objects, change, verdict)
        leases.take(change, verdict)
    check_fencing(history, verdict)
    check_tokens(history, verdict)
    check_preconditions(history, verdict)
    check_user_writes(history, verdict)
    check_shown(history, verdict)
    _check_bugs(history, verdict)
    _check_end(history, objects, verdict)
    return verdict


class _Bound:
    """C2."""

    def __init__(self) -> None:
        self._node: dict[str, str] = {}

    def take(self, change: Change, verdict: Verdict) -> None:
        pod = change.new
        if change.resource != PODS or pod is None:
            return
        node, uid = str(pod["spec"].get("nodeName") or ""), uid_of(pod)
        first = self._node.setdefault(uid, node) or node
        if node != first:
            verdict.add(
                "C2",
                f"{name_of(change.key)} was bound to {first} and is on {node or 'no node'} at revision "
                f"{change.revision}",
                change.event,
            )
        elif node and not self._node[uid]:
            self._node[uid] = node
            verdict.count("bindings")


class _Sizes:
    """C3. By uid: the sizes that each ReplicaSet and Deployment was given, and what it said it had seen."""

    def __init__(self) -> None:
        self._given: dict[str, list[_Size]] = {}
        self._observed: dict[str, list[tuple[int, int]]] = {}  # (revision, observedGeneration from then on)
        self._made_by: dict[str, str] = {}  # what was created with a controller -> that controller

    def take(self, objects: Objects, change: Change, verdict: Verdict) -> None:
        obj = change.new
        if obj is None:
            return
        if change.resource in (REPLICA_SETS, DEPLOYMENTS):
            self._note(obj, change.revision)
        if change.created and (controller := controller_uid(obj)) is not None:
            self._made_by[uid_of(obj)] = controller
            if change.resource == PODS:
                self._check(objects, change, controller, verdict)

    def _note(self, obj: Json, revision: int) -> None:
        sizes = self._given.setdefault(uid_of(obj), [])
        if not sizes or sizes[-1].generation != generation_of(obj):
            pods = pods_max(obj) if "strategy" in obj["spec"] else replicas_of(obj)
            sizes.append(_Size(revision, generation_of(obj), pods))
        self._observed.setdefault(uid_of(obj), []).append((revision, observed_generation_of(obj)))

    def _check(self, objects: Objects, change: Change, controller: str, verdict: Verdict) -> None:
        replica_set = objects.uid(controller)
        if replica_set is None:
            return
        verdict.count("pods created by control loops")
        allowed = self._allowed(replica_set, change.revision)
        self._compare(
            "its ReplicaSet", replica_set, self._live(objects, controller), allowed, change, verdict
        )
        deployment = objects.uid(self._made_by.get(controller, ""))
        if deployment is not None and not is_deleting(deployment):  # it no longer resizes anything
            siblings = objects.controlled_by(uid_of(deployment))
            made = [rs for rs in siblings if self._made_by.get(uid_of(rs)) == uid_of(deployment)]
            if replica_set not in made:
                return  # it was orphaned meanwhile
            live = sum(self._live(objects, uid_of(rs)) for rs in made)
            seen_at = min(self._size_seen_at(rs, change.revision) for rs in made)
            allowed = self._allowed(deployment, seen_at)
            self._compare("its Deployment", deployment, live, allowed, change, verdict)

    def _live(self, objects: Objects, uid: str) -> int:
        return sum(
            is_live(pod) and self._made_by.get(uid_of(pod)) == uid for pod in objects.controlled_by(uid)
        )

    def _allowed(self, owner: Json, revision: int) -> int:
        """The largest size that may have been acted on by whoever decided at `revision` or later."""
        observed = 0
        for at, generation in self._observed[uid_of(owner)]:
            if at > revision:
                break
            observed = generation
        return max(size.pods for size in self._given[uid_of(owner)] if size.generation >= observed)

    def _size_seen_at(self, replica_set: Json, now: int) -> int:
        """When the oldest size was decided that its controller may still act on."""
        observed = observed_generation_of(replica_set)
        if observed == generation_of(replica_set):
            return now
        return min(size.revision for size in self._given[uid_of(replica_set)] if size.generation >= observed)

    def _compare(
        self, whose: str, owner: Json, live: int, allowed: int, change: Change, verdict: Verdict
    ) -> None:
        if live > allowed:
            verdict.add(
                "C3",
                f"{name_of(change.key)}, created at revision {change.revision}, is live pod {live} of "
                f"{whose} {owner['metadata']['name']}, which may have {allowed}",
                change.event,
            )


class _Size(NamedTuple):
    revision: int  # at which it was written
    generation: int
    pods: int


class _Nodes:
    """C5."""

    def take(self, objects: Objects, change: Change, verdict: Verdict) -> None:
        pod, old = change.new, change.old
        if change.resource != PODS or pod is None or old is None:
            return
        name = pod["spec"].get("nodeName")
        if not name or old["spec"].get("nodeName"):
            return
        node = objects.by_key.get(f"/registry/core/nodes/{name}")
        if node is None:
            return
        taken: dict[str, float] = {}
        for each in objects.pods_on(name):
            if not is_finished(each):
                for resource, amount in requests_of(each).items():
                    taken[resource] = taken.get(resource, 0.0) + amount
        room = (node.get("status") or {}).get("allocatable") or {}
        for resource, amount in taken.items():
            if resource in room and amount > quantity(room[resource]) + 1e-9:
                verdict.add(
                    "C5",
                    f"{name_of(change.key)} was bound at revision {change.revision} to {name}, whose pods "
                    f"now take {amount:g} {resource} of {room[resource]}",
                    change.event,
                )


class _Leases:
    """L5: while it exists, a Lease of a leader keeps its holder."""

    def take(self, change: Change, verdict: Verdict) -> None:
        if change.resource != LEASES or change.old is None or change.new is None:
            return
        before, after = (each["spec"].get("holderIdentity") for each in (change.old, change.new))
        if before != after:
            verdict.add(
                "L5",
                f"{name_of(change.key)} went from {before} to {after} at revision {change.revision} without "
                f"being deleted between",
                change.event,
            )


def _check_bugs(history: History, verdict: Verdict) -> None:
    for record in history.observations:
        if record["kind"] == "bug":
            verdict.add("A3", f"{record['host']}: {record['text']}", record)


def _check_end(history: History, objects: Objects, verdict: Verdict) -> None:
    ends: list[dict[str, Any]] = [each for each in history.observations if each["kind"] == "end"]
    if not ends:
        verdict.unknown_because.append("the run has no end: nothing can be said of convergence")
        return
    waited_s = ends[-1].get("waited_s", 0.0)
    for sentence in unsettled(objects):
        verdict.add("C1", f"{sentence}, {waited_s:.0f} s after the last fault")
    for sentence in orphans(objects):
        verdict.add("C4", f"{sentence}, {waited_s:.0f} s after the last fault")
    verdict.count("objects at the end", len(objects.by_key))
