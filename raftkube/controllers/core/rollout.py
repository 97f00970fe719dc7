"""The arithmetic of a rollout: how large each ReplicaSet of a Deployment may be next.

Both bounds hold for pods, not only for sizes, at every moment: a ReplicaSet takes up the larger of what it
wants and what it has, the next step waits until the last resize has been observed, and only pods count as
available that are both wanted and reported. (Upstream trusts sizes where it grows and statuses where it
shrinks, and overshoots while its ReplicaSet controller lags.)
Source: k8s.io/kubernetes/pkg/controller/deployment/{rolling,sync}.go and util/deployment_util.go.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from raftkube.api.objects import section
from raftkube.api.resource import Object
from raftkube.api.timestamps import seconds_or_none
from raftkube.controllers.core.replica_set import replicas_of

REVISION: Final = "deployment.kubernetes.io/revision"
DESIRED_REPLICAS: Final = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS: Final = "deployment.kubernetes.io/max-replicas"
_DEFAULT_BOUND: Final = "25%"

Sizes = list[tuple[Object, int]]


def scaled(value: int | str, total: int, *, round_up: bool) -> int:
    """A number, or a percentage of `total`. Raises ValueError: neither (validation lets none through)."""
    if isinstance(value, int):
        return value
    share = int(value.removesuffix("%")) * total / 100
    return math.ceil(share) if round_up else math.floor(share)


def is_rolling(deployment: Object) -> bool:
    """Whether its strategy is RollingUpdate (the default)."""
    return bool(section(deployment["spec"], "strategy").get("type", "RollingUpdate") == "RollingUpdate")


def _bounds(deployment: Object) -> tuple[int, int]:
    """(surge, unavailable); both 0 would never move, then one may be unavailable (ResolveFenceposts)."""
    rolling = section(section(deployment["spec"], "strategy"), "rollingUpdate")
    total = replicas_of(deployment)
    surge = scaled(rolling.get("maxSurge", _DEFAULT_BOUND), total, round_up=True)
    unavailable = scaled(rolling.get("maxUnavailable", _DEFAULT_BOUND), total, round_up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def max_surge(deployment: Object) -> int:
    """Pods allowed beyond spec.replicas."""
    return _bounds(deployment)[0] if is_rolling(deployment) else 0


def max_unavailable(deployment: Object) -> int:
    """Pods of spec.replicas that may be unavailable."""
    total = replicas_of(deployment)
    return min(_bounds(deployment)[1], total) if is_rolling(deployment) and total else 0


def max_replicas(deployment: Object) -> int:
    """Pods that all its ReplicaSets together may have."""
    return replicas_of(deployment) + max_surge(deployment)


def wanted(replica_sets: Iterable[Object]) -> int:
    """Sum of spec.replicas."""
    return sum(replicas_of(rs) for rs in replica_sets)


def reported(replica_sets: Iterable[Object], count: str) -> int:
    """Sum of status[count]."""
    return sum(int(section(rs, "status").get(count) or 0) for rs in replica_sets)


def active(replica_sets: Iterable[Object]) -> list[Object]:
    """Those that want pods."""
    return [rs for rs in replica_sets if replicas_of(rs) > 0]


def by_age(replica_sets: Iterable[Object]) -> list[Object]:
    """The oldest first; of the same second by name."""
    return sorted(replica_sets, key=_age_key)


def _age_key(rs: Object) -> tuple[float, str]:
    created = seconds_or_none(rs["metadata"].get("creationTimestamp"))
    return (math.inf if created is None else created, rs["metadata"]["name"])


def new_size(deployment: Object, new: Object, all_sets: Sequence[Object]) -> int:
    """spec.replicas for the new ReplicaSet. Source: reconcileNewReplicaSet, NewRSNewReplicas."""
    size, target = replicas_of(new), replicas_of(deployment)
    if size >= target or not is_rolling(deployment):
        return target
    if not all(is_settled(rs) for rs in all_sets if rs is not new):
        return size
    room = max_replicas(deployment) - sum(_occupied(rs) for rs in all_sets)
    return size + min(max(room, 0), target - size)


def is_settled(rs: Object) -> bool:
    """Whether its status is of its current size."""
    observed = int(section(rs, "status").get("observedGeneration") or 0)
    return observed >= int(rs["metadata"].get("generation") or 0)


def _occupied(rs: Object) -> int:
    return max(replicas_of(rs), reported([rs], "replicas"))


def _available(rs: Object) -> int:
    return min(replicas_of(rs), reported([rs], "availableReplicas"))


def old_sizes(deployment: Object, new: Object, old: Sequence[Object]) -> Sizes:
    """New sizes of old ReplicaSets that shrink: first pods that never became available, then others as far
    as enough stay available. Source: reconcileOldReplicaSets.

    None while a status is older than the last resize: it may count pods that are gone since.
    """
    old = active(old)
    if not all(map(is_settled, [*old, new])):
        return []
    available_min = replicas_of(deployment) - max_unavailable(deployment)
    new_unavailable = replicas_of(new) - _available(new)
    removable = wanted([*old, new]) - available_min - new_unavailable
    if not old or removable <= 0:
        return []
    sizes = {rs["metadata"]["name"]: replicas_of(rs) for rs in old}
    _shrink_unhealthy(by_age(old), sizes, removable)
    _shrink_available(by_age(old), sizes, sum(map(_available, [*old, new])) - available_min)
    return [(rs, sizes[rs["metadata"]["name"]]) for rs in by_age(old)]


def _shrink_unhealthy(old: Sequence[Object], sizes: dict[str, int], budget: int) -> None:
    for rs in old:
        count = min(budget, replicas_of(rs) - _available(rs))
        sizes[rs["metadata"]["name"]] -= count
        budget -= count


def _shrink_available(old: Sequence[Object], sizes: dict[str, int], budget: int) -> None:
    for rs in old:
        count = min(max(budget, 0), sizes[rs["metadata"]["name"]])
        sizes[rs["metadata"]["name"]] -= count
        budget -= count


def proportional_sizes(deployment: Object, all_sets: Sequence[Object]) -> Sizes:
    """New sizes of all active ReplicaSets when a Deployment is scaled during a rollout: each by its share,
    the rest to the largest. Source: scale, GetReplicaSetProportion."""
    sets = active(all_sets)
    allowed = max_replicas(deployment) if replicas_of(deployment) > 0 else 0
    to_add = allowed - wanted(sets)
    sets = _by_size(sets, newer_first=to_add > 0)
    added, sizes = 0, []
    for rs in sets:
        share = _proportion(deployment, rs, to_add, added)
        added += share
        sizes.append(replicas_of(rs) + share)
    if sizes:
        sizes[0] = max(0, sizes[0] + to_add - added)
    return list(zip(sets, sizes, strict=True))


def _by_size(sets: Iterable[Object], *, newer_first: bool) -> list[Object]:
    """The largest first; of one size the newer or the older."""
    ordered = by_age(sets)
    if newer_first:
        ordered.reverse()
    return sorted(ordered, key=lambda rs: -replicas_of(rs))


def _proportion(deployment: Object, rs: Object, to_add: int, added: int) -> int:
    left = to_add - added
    if left == 0:
        return 0
    fraction = _fraction(deployment, rs)
    return min(fraction, left) if to_add > 0 else max(fraction, left)


def _fraction(deployment: Object, rs: Object) -> int:
    size = replicas_of(rs)
    if replicas_of(deployment) == 0:
        return -size
    before = annotated(rs, MAX_REPLICAS) or int(section(deployment, "status").get("replicas") or 0)
    if before == 0:
        return 0  # no annotation and nothing known to run: no base for a share
    # Go's integer.RoundToInt32: half away from zero.
    return math.floor(size * max_replicas(deployment) / before + 0.5) - size


def annotated(rs: Object, name: str) -> int | None:
    """A number kept in an annotation; None if it is not there or no number."""
    text = str(section(rs["metadata"], "annotations").get(name) or "")
    return int(text) if text.isdigit() else None


def is_saturated(deployment: Object, rs: Object | None) -> bool:
    """Whether this ReplicaSet alone is all that the Deployment wants."""
    target = replicas_of(deployment)
    return (
        rs is not None
        and replicas_of(rs) == target
        and annotated(rs, DESIRED_REPLICAS) == target
        and reported([rs], "availableReplicas") == target
    )


def active_or_latest(new: Object | None, old: Sequence[Object]) -> Object | None:
    """The only active ReplicaSet, or if there is none the newest; None if several are active."""
    all_sets = [*([new] if new else []), *old]
    running = active(all_sets)
    if len(running) > 1 or not all_sets:
        return None
    return running[0] if running else new or by_age(old)[-1]
