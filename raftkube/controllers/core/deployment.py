"""The Deployment controller: one round of a rollout, a scaling, a pause or a clean-up.

`plan` reads the Deployment and its ReplicaSets and answers with actions in order. Each round is worked out
on copies that already show what the round does, as if every action succeeded; if one does not, the rest is
dropped and the next round begins from what is then observed.
Source: k8s.io/kubernetes/pkg/controller/deployment (syncDeployment).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from raftkube.api.objects import section
from raftkube.api.resource import Object
from raftkube.api.selectors import label_selector_of
from raftkube.controllers.core import deployment_status as statuses
from raftkube.controllers.core import pods, revisions, rollout
from raftkube.controllers.core.conditions import find_condition, with_condition
from raftkube.controllers.core.owners import claim, controlled_by, is_deleting
from raftkube.controllers.core.pod_template import same_template
from raftkube.controllers.core.replica_set import replicas_of

SCALING: Final = "ScalingReplicaSet"


@dataclass(frozen=True, slots=True)
class Observed:
    """replica_sets: those of its namespace that it controls or that nobody does. pods: by the uid of the
    ReplicaSet that controls them."""

    deployment: Object
    replica_sets: Sequence[Object]
    pods: Mapping[str, Sequence[Object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adopt:
    """Become the controller of an orphan."""

    replica_set: Object


@dataclass(frozen=True, slots=True)
class Release:
    """Let go of a ReplicaSet that the selector matches no more."""

    replica_set: Object


@dataclass(frozen=True, slots=True)
class Create:
    """Create the new ReplicaSet. event: what to tell when it is done, "" for nothing."""

    replica_set: Object
    event: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """Replace a ReplicaSet, if it is still as observed."""

    replica_set: Object
    event: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a ReplicaSet that is no longer needed."""

    replica_set: Object


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace status and annotations of the Deployment, if it is still as observed."""

    deployment: Object


@dataclass(frozen=True, slots=True)
class Warn:
    """An event of type Warning."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Recheck:
    """Look again after so many seconds, even if nothing happens."""

    after_s: float


Action = Adopt | Release | Create | Update | Delete | WriteStatus | Warn | Recheck


def plan(observed: Observed, *, now: float) -> list[Action]:
    """One round."""
    selector = observed.deployment["spec"].get("selector") or {}
    if not selector:
        return _plan_selecting_all(observed.deployment)
    claimed = claim(observed.deployment, label_selector_of(selector), observed.replica_sets)
    this = _Round(observed.deployment, claimed.ours, observed.pods, now)
    this.actions += [Adopt(rs) for rs in claimed.adopt]
    this.actions += [Release(rs) for rs in claimed.release]
    this.run()
    return this.actions


def _plan_selecting_all(deployment: Object) -> list[Action]:
    text = "This deployment is selecting all pods. A non-empty selector is required."
    actions: list[Action] = [Warn("SelectingAll", text)]
    generation = deployment["metadata"].get("generation", 0)
    status = section(deployment, "status")
    if (status.get("observedGeneration") or 0) < generation:
        actions.append(WriteStatus(deployment | {"status": status | {"observedGeneration": generation}}))
    return actions


class _Round:
    """The state of one round: the Deployment and its ReplicaSets as they will be after `actions`."""

    def __init__(
        self, deployment: Object, sets: Iterable[Object], pods_of: Mapping[str, Sequence[Object]], now: float
    ) -> None:
        self.stored = deployment
        self.deployment = deployment
        self.pods_of = pods_of
        self.now = now
        self.actions: list[Action] = []
        sets = list(sets)
        self.new = revisions.find_new(deployment, sets)
        self.old = rollout.by_age(rs for rs in sets if rs is not self.new)

    @property
    def all_sets(self) -> list[Object]:
        return [*self.old, *([self.new] if self.new else [])]

    def run(self) -> None:
        """Source: syncDeployment."""
        if is_deleting(self.deployment):
            self._annotate_new()
            return self._write_status(self._observed_status())
        self._set_status(statuses.paused_status(self.deployment, self.now))
        paused = bool(self.deployment["spec"].get("paused"))
        if paused or self._was_scaled():
            return self._sync(paused=paused)
        if rollout.is_rolling(self.deployment):
            return self._roll()
        return self._recreate()

    # The kinds of rounds --------------------------------------------------------------------

    def _was_scaled(self) -> bool:
        """Whether spec.replicas changed since its ReplicaSets were sized (isScalingEvent)."""
        target = replicas_of(self.deployment)
        sized_for = [rollout.annotated(rs, rollout.DESIRED_REPLICAS) for rs in rollout.active(self.all_sets)]
        return any(size is not None and size != target for size in sized_for)

    def _sync(self, *, paused: bool) -> None:
        self._annotate_new()
        self._scale()
        if paused:
            self._clean_up()
        self._write_status(self._observed_status())

    def _roll(self) -> None:
        """Source: rolloutRolling."""
        self._ensure_new()
        assert self.new is not None
        size = rollout.new_size(self.deployment, self.new, self.all_sets)
        if not self._resize(self.new, size) and not self._shrink_old():
            self._clean_up_if_complete()
        self._write_status(self._rollout_status())

    def _shrink_old(self) -> bool:
        assert self.new is not None
        sizes = rollout.old_sizes(self.deployment, self.new, self.old)
        return self._resize_all(sizes)

    def _recreate(self) -> None:
        """All old pods first end, then new ones are made (rolloutRecreate)."""
        self._annotate_new()
        scaled_down = self._resize_all([(rs, 0) for rs in rollout.active(self.old)])
        if not scaled_down and not self._old_pods_run():
            self._ensure_new()
            assert self.new is not None
            self._resize(self.new, replicas_of(self.deployment))
            self._clean_up_if_complete()
        self._write_status(self._rollout_status())

    def _old_pods_run(self) -> bool:
        if rollout.reported(self.old, "replicas") > 0:
            return True
        new_uid = self.new["metadata"].get("uid") if self.new else None
        old_pods = [pod for uid, found in self.pods_of.items() if uid != new_uid for pod in found]
        return any(not pods.is_finished(pod) for pod in old_pods)

    def _scale(self) -> None:
        """Spread a change of spec.replicas over the ReplicaSets. Source: scale."""
        only = rollout.active_or_latest(self.new, self.old)
        if only is not None:
            self._resize(only, replicas_of(self.deployment))
        elif rollout.is_saturated(self.deployment, self.new):
            for rs in rollout.active(self.old):
                self._resize(rs, 0)
        elif rollout.is_rolling(self.deployment):
            for rs, size in rollout.proportional_sizes(self.deployment, self.all_sets):
                self._resize(rs, size, annotate=True)

    # Steps ----------------------------------------------------------------------------------

    def _ensure_new(self) -> None:
        """Have a new ReplicaSet, made now if there is none, with its revision. Source: getNewReplicaSet."""
        if self.new is not None:
            return self._annotate_new()
        revision = revisions.next_revision(self.old)
        made = revisions.make_new(self.deployment, revision)
        size = rollout.new_size(self.deployment, made, [*self.old, made])
        self.new = made | {"spec": made["spec"] | {"replicas": size}}
        name = made["metadata"]["name"]
        event = f"Scaled up replica set {name} from 0 to {size}" if size else ""
        self.actions.append(Create(self.new, event))
        self._set_revision(revision)
        self._set_progressing(statuses.CREATED_NEW, f'Created new replica set "{name}"')
        return None

    def _annotate_new(self) -> None:
        if self.new is None:
            return
        annotated = revisions.annotate_new(self.deployment, self.new, revisions.next_revision(self.old))
        min_ready_s = int(self.deployment["spec"].get("minReadySeconds") or 0)
        if int(annotated["spec"].get("minReadySeconds") or 0) != min_ready_s:
            annotated = annotated | {"spec": annotated["spec"] | {"minReadySeconds": min_ready_s}}
        if annotated is not self.new:
            self._update(self.new, annotated)
        self._set_revision(revisions.revision_of(annotated))
        if find_condition(section(self.deployment, "status"), statuses.PROGRESSING) is None:
            name = annotated["metadata"]["name"]
            self._set_progressing(statuses.FOUND_NEW, f'Found new replica set "{name}"')

    def _resize(self, rs: Object, size: int, *, annotate: bool = False) -> bool:
        """Have `rs` want `size` pods; whether that is a change. annotate: note the Deployment's size on it
        even if it is none."""
        before = replicas_of(rs)
        resized = revisions.sized(self.deployment, rs, size)
        if before == size and not (annotate and resized != rs):
            return False
        word = "up" if size > before else "down"
        text = f"Scaled {word} replica set {rs['metadata']['name']} from {before} to {size}"
        self._update(rs, resized, event=text if before != size else "")
        return before != size

    def _resize_all(self, sizes: rollout.Sizes) -> bool:
        """Whether any changed."""
        changed = [self._resize(rs, size) for rs, size in sizes]
        return any(changed)

    def _update(self, before: Object, after: Object, *, event: str = "") -> None:
        """Record one write per ReplicaSet: a later change in the round goes into the same one."""
        for index, action in enumerate(self.actions):
            if isinstance(action, Create | Update) and action.replica_set is before:
                self.actions[index] = type(action)(after, event or action.event)
                break
        else:
            self.actions.append(Update(after, event))
        if self.new is before:
            self.new = after
        self.old = [after if rs is before else rs for rs in self.old]

    def _clean_up_if_complete(self) -> None:
        if statuses.is_complete(self.deployment, section(self.deployment, "status")):
            self._clean_up()

    def _clean_up(self) -> None:
        self.actions += [Delete(rs) for rs in revisions.expendable(self.deployment, self.old)]

    # Status ---------------------------------------------------------------------------------

    def _observed_status(self) -> Object:
        return statuses.observed_status(self.deployment, self.all_sets, self.new, self.now)

    def _rollout_status(self) -> Object:
        return statuses.rollout_status(self.deployment, self.all_sets, self.new, self.now)

    def _set_status(self, status: Object) -> None:
        self.deployment = self.deployment | {"status": status}

    def _set_revision(self, revision: int) -> None:
        annotations = section(self.deployment["metadata"], "annotations") | {rollout.REVISION: str(revision)}
        self.deployment = self.deployment | {
            "metadata": self.deployment["metadata"] | {"annotations": annotations}
        }

    def _set_progressing(self, reason: str, message: str) -> None:
        if statuses.deadline_s(self.deployment) is not None:
            condition = statuses.progressing("True", reason, message, self.now)
            self._set_status(with_condition(section(self.deployment, "status"), condition))

    def _write_status(self, status: Object) -> None:
        self._set_status(status)
        same_annotations = section(self.deployment["metadata"], "annotations") == section(
            self.stored["metadata"], "annotations"
        )
        if not same_annotations or statuses.status_changed(section(self.stored, "status"), status):
            self.actions.append(WriteStatus(self.deployment))
        after_s = statuses.recheck_after_s(self.deployment, status, self.now)
        if after_s is not None and not is_deleting(self.deployment):
            self.actions.append(Recheck(after_s))


# When creating the new ReplicaSet fails ------------------------------------------------------


def is_ours(deployment: Object, taken: Object) -> bool:
    """Whether the ReplicaSet that has the new one's name is the new one: an earlier create of ours whose
    answer was lost, or that the cache does not show yet."""
    same = same_template(taken["spec"]["template"], deployment["spec"]["template"])
    return controlled_by(taken, deployment) and same


def after_collision(deployment: Object) -> Object:
    """The Deployment with a hash collision counted: the next round takes another name."""
    status = section(deployment, "status")
    return deployment | {"status": status | {"collisionCount": int(status.get("collisionCount") or 0) + 1}}


def after_failed_create(deployment: Object, name: str, why: str, now: float) -> tuple[Object, Warn]:
    """The Deployment with the failure in Progressing, and the event that tells of it."""
    message = f'Failed to create new replica set "{name}": {why}'
    warning = Warn(statuses.CREATE_FAILED, message)
    if statuses.deadline_s(deployment) is None:
        return deployment, warning
    condition = statuses.progressing("False", statuses.CREATE_FAILED, message, now)
    return deployment | {"status": with_condition(section(deployment, "status"), condition)}, warning
