"""Rollouts against a naive simulator: they converge, and keep the surge and unavailability bounds for pods
at every moment, in whatever order controllers and kubelets take their turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pod_simulator import World, make_deployment

from raftkube.controllers.core import deployment_status, rollout
from raftkube.controllers.core.conditions import find_condition
from raftkube.rng import Rng, seeded_rng

BOUNDS = st.one_of(st.integers(0, 4), st.sampled_from(["0%", "10%", "25%", "50%", "100%"]))


def strategy(surge: Any, unavailable: Any) -> dict[str, Any]:
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
    }


def assert_complete(world: World) -> None:
    replicas = world.deployment["spec"]["replicas"]
    status = world.deployment["status"]
    assert deployment_status.is_complete(world.deployment, status)
    assert len(world.pods) == replicas
    assert {pod["spec"]["containers"][0]["image"] for pod in world.pods.values()} <= {
        world.deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    }


def take_turn(world: World, choice: int) -> None:
    """One controller or kubelet acts; which one is drawn."""
    sets, unready = list(world.sets.values()), world.unready()
    choice %= 1 + len(sets) + len(unready)
    if choice == 0:
        world.deployment_round()
    elif choice <= len(sets):
        world.replica_set_round(sets[choice - 1])
    else:
        world.make_ready(unready[choice - 1 - len(sets)])


def take_lagging_turn(world: World, rng: Rng, lag: list[float]) -> None:
    """One actor acts; each ReplicaSet's rounds, the Deployment's and the kubelets' come at rates of their
    own, so that some lag far behind others."""
    actors: list[tuple[float, Any, Any]] = [(lag[0], world.deployment_round, ())]
    for number, rs in enumerate(world.sets.values()):
        actors.append((lag[1 + number % 3], world.replica_set_round, (rs, rng.choice([0, 1, 1_000]))))
    if unready := world.unready():
        actors.append((lag[4], world.make_ready, (rng.choice(unready),)))
    ((_, act, arguments),) = rng.choices(actors, [rate for rate, _, _ in actors])
    act(*arguments)


@settings(deadline=None, max_examples=150)
@given(
    replicas=st.integers(1, 8),
    surge=BOUNDS,
    unavailable=BOUNDS,
    lag=st.lists(st.sampled_from([0.02, 0.2, 1.0]), min_size=5, max_size=5),
    seed=st.integers(0, 10_000),
)
# Each of these fails when one of the rules in `rollout` is left out: the wanted among the available, what a
# ReplicaSet still has, and waiting for the last resize where it shrinks and where it grows.
@example(replicas=4, surge="25%", unavailable="25%", lag=[1.0, 0.02, 0.02, 1.0, 1.0], seed=3968)
@example(replicas=3, surge="25%", unavailable=0, lag=[0.2, 0.02, 0.2, 0.2, 0.2], seed=6219)
@example(replicas=4, surge=2, unavailable=1, lag=[1.0, 1.0, 0.2, 1.0, 1.0], seed=4586)
@example(replicas=2, surge=1, unavailable=1, lag=[0.2, 1.0, 0.02, 1.0, 0.2], seed=4824)
def test_a_rollout_keeps_its_bounds_and_converges(
    replicas: int, surge: Any, unavailable: Any, lag: list[float], seed: int
) -> None:
    world, rng = World(make_deployment(replicas, strategy=strategy(surge, unavailable))), seeded_rng(seed)
    world.settle()
    pods_max = rollout.max_replicas(world.deployment)
    ready_min = replicas - rollout.max_unavailable(world.deployment)
    for number in range(120):
        if number % 40 == 0:
            world.set_image(f"web:{1 + rng.randrange(3)}")
        world.now += 1
        take_lagging_turn(world, rng, lag)
        assert len(world.pods) <= pods_max
        assert world.ready_count() >= ready_min
    world.settle()
    assert_complete(world)


@settings(deadline=None, max_examples=100)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("scale"), st.integers(0, 12)),
            st.tuples(st.just("image"), st.integers(0, 3)),
            st.tuples(st.just("pause"), st.booleans()),
            st.tuples(st.just("turn"), st.integers(0, 30)),
        ),
        max_size=80,
    ),
    recreate=st.booleans(),
)
def test_any_history_of_edits_converges(steps: list[tuple[str, Any]], recreate: bool) -> None:
    spec = {"strategy": {"type": "Recreate"}} if recreate else {}
    world = World(make_deployment(3, revisionHistoryLimit=2, **spec))
    for kind, value in steps:
        world.now += 1
        if kind == "scale":
            world.edit(replicas=value)
        elif kind == "image":
            world.set_image(f"web:{value}")
        elif kind == "pause":
            world.edit(paused=value)
        else:
            take_turn(world, value)
    world.edit(paused=False)
    world.settle()
    assert_complete(world)
    assert len(world.sets) <= 3, "the new one and revisionHistoryLimit old ones"


def test_recreate_never_mixes_versions() -> None:
    world = World(make_deployment(3, strategy={"type": "Recreate"}))
    world.settle()
    world.set_image("web:1")
    for _ in range(20):
        world.deployment_round()
        for rs in list(world.sets.values()):
            world.replica_set_round(rs)
        images = {pod["spec"]["containers"][0]["image"] for pod in world.pods.values()}
        assert len(images) <= 1
        for pod in world.unready():
            world.make_ready(pod)
    assert_complete(world)


def test_a_rollout_tells_its_story_in_upstreams_words() -> None:
    world = World(make_deployment(3))
    world.settle()
    (first,) = world.sets
    assert world.events == [f"Scaled up replica set {first} from 0 to 3"]
    status = world.deployment["status"]
    assert find_condition(status, "Available")["message"] == "Deployment has minimum availability."
    progress = find_condition(status, "Progressing")
    assert progress["reason"] == "NewReplicaSetAvailable"
    assert progress["message"] == f'ReplicaSet "{first}" has successfully progressed.'
    assert world.deployment["metadata"]["annotations"][rollout.REVISION] == "1"

    world.set_image("web:1")
    world.settle()
    second = next(name for name in world.sets if name != first)
    assert world.events[1:] == [
        f"Scaled up replica set {second} from 0 to 1",
        f"Scaled down replica set {first} from 3 to 2",
        f"Scaled up replica set {second} from 1 to 2",
        f"Scaled down replica set {first} from 2 to 1",
        f"Scaled up replica set {second} from 2 to 3",
        f"Scaled down replica set {first} from 1 to 0",
    ]
    assert world.deployment["metadata"]["annotations"][rollout.REVISION] == "2"


def test_rolling_back_reuses_the_replica_set_and_keeps_its_revisions() -> None:
    world = World(make_deployment(2))
    world.settle()
    world.set_image("web:1")
    world.settle()
    world.set_image("web:0")
    world.settle()
    assert len(world.sets) == 2
    annotations = min(world.sets.values(), key=lambda rs: rs["metadata"]["uid"])["metadata"]["annotations"]
    assert annotations[rollout.REVISION] == "3"
    assert annotations["deployment.kubernetes.io/revision-history"] == "1"


def test_a_stuck_rollout_times_out_and_says_so() -> None:
    world = World(make_deployment(2, progressDeadlineSeconds=60))
    world.settle()
    world.set_image("web:1")
    recheck = None
    for _ in range(4):  # the new pod never becomes ready
        actions = world.deployment_round()
        recheck = next((a.after_s for a in actions if hasattr(a, "after_s")), recheck)
        for rs in list(world.sets.values()):
            world.replica_set_round(rs)
    assert recheck is not None
    assert 1 <= recheck <= 61
    world.now += 62
    world.deployment_round()
    progress = find_condition(world.deployment["status"], "Progressing")
    assert (progress["status"], progress["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert world.ready_count() >= 2, "what ran goes on running"


def test_scaling_in_the_middle_of_a_rollout_is_proportional() -> None:
    world = World(make_deployment(10, strategy=strategy(3, 2)))
    world.settle()
    world.set_image("web:1")
    for _ in range(3):
        world.deployment_round()
        for rs in list(world.sets.values()):
            world.replica_set_round(rs)
    before = sorted(rs["spec"]["replicas"] for rs in world.sets.values())
    world.edit(replicas=15)
    world.deployment_round()
    after = sorted(rs["spec"]["replicas"] for rs in world.sets.values())
    # Upstream's own example: 8 and 5 of 10+3 become 11 and 7 of 15+3.
    assert (before, after) == ([5, 8], [7, 11])


@pytest.mark.parametrize(
    ("bound", "total", "round_up", "expected"),
    [("25%", 3, True, 1), ("25%", 3, False, 0), ("50%", 3, True, 2), ("100%", 7, False, 7), (2, 9, True, 2)],
)
def test_percentages_round_up_for_surge_and_down_for_unavailable(
    bound: Any, total: int, round_up: bool, expected: int
) -> None:
    assert rollout.scaled(bound, total, round_up=round_up) == expected
