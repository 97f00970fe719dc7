"""What a kubelet does next for a pod: tables for the cases, and a simulated pod for the invariants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkube.kubelet.core.backoff import Backoff, BackoffPolicy, duration
from raftkube.kubelet.core.plan import Observed, Plan, plan_end, plan_pod
from raftkube.kubelet.core.pods import Container

POLICY = BackoffPolicy()


def pod(
    *names: str, inits: tuple[str, ...] = (), sidecars: tuple[str, ...] = (), policy: str = "Always"
) -> dict[str, Any]:
    early = [{"name": name, "image": "i", "restartPolicy": "Always"} for name in sidecars]
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {
            "restartPolicy": policy,
            "initContainers": early + [{"name": name, "image": "i"} for name in inits],
            "containers": [{"name": name, "image": "i"} for name in names or ("a",)],
        },
    }


def made(name: str, *, attempt: int = 0, code: int | None = None, at: float = 0.0) -> Container:
    return Container(f"{name}-{attempt}", "u", name, attempt, "i", "i", at, at, code)


def plan(spec: dict[str, Any], *seen: Container, now: float = 0.0, **more: Any) -> Plan:
    attempts = {container.name: [container] for container in seen}
    started = frozenset(container.id for container in seen if container.running)
    return plan_pod(spec, Observed(attempts, now, started=more.pop("started", started), **more), POLICY)


def starts(planned: Plan) -> list[tuple[str, int]]:
    return [(start.container["name"], start.attempt) for start in planned.starts]


def test_a_new_pod_starts_everything() -> None:
    assert starts(plan(pod("a", "b"))) == [("a", 0), ("b", 0)]


def test_what_runs_is_left_alone() -> None:
    planned = plan(pod("a", "b"), made("a"), made("b"))
    assert planned == Plan()


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True),
     ("Never", 0, False), ("Never", 1, False)],
)  # fmt: skip
def test_restart_policy(policy: str, code: int, again: bool) -> None:
    planned = plan(pod(policy=policy), made("a", code=code))
    assert starts(planned) == ([("a", 1)] if again else [])


def test_init_containers_run_one_after_another() -> None:
    spec = pod("a", "b", inits=("x", "y"))
    assert starts(plan(spec)) == [("x", 0)]
    assert starts(plan(spec, made("x"))) == []
    assert starts(plan(spec, made("x", code=0))) == [("y", 0)]
    assert starts(plan(spec, made("x", code=0), made("y", code=0))) == [("a", 0), ("b", 0)]


@pytest.mark.parametrize(
    ("policy", "again"), [("Always", [("x", 1)]), ("OnFailure", [("x", 1)]), ("Never", [])]
)
def test_a_failed_init_container(policy: str, again: list[tuple[str, int]]) -> None:
    assert starts(plan(pod(inits=("x",), policy=policy), made("x", code=1))) == again


def test_init_containers_do_not_run_again_once_the_pod_is_initialized() -> None:
    assert starts(plan(pod("a", "b", inits=("x",)), made("a", code=1))) == [("a", 1), ("b", 0)]


def test_a_sidecar_must_have_started_before_what_follows() -> None:
    spec = pod("a", sidecars=("s",))
    assert starts(plan(spec)) == [("s", 0)]
    assert starts(plan(spec, made("s"), started=frozenset())) == []
    assert starts(plan(spec, made("s"))) == [("a", 0)]
    assert starts(plan(spec, made("s", code=0), made("a"))) == [("s", 1)]


def test_sidecars_end_with_the_last_main_container() -> None:
    planned = plan(pod("a", sidecars=("s",), policy="Never"), made("s"), made("a", code=0))
    assert [stop.container.name for stop in planned.stops] == ["s"]
    planned = plan(pod("a", sidecars=("s",), policy="Never"), made("s", code=143), made("a", code=0))
    assert planned.starts == []


def test_another_image_replaces_the_container() -> None:
    planned = plan(pod(), replace(made("a"), image="old"))
    assert [stop.container.name for stop in planned.stops] == ["a"]


def test_a_container_that_its_probe_gave_up_is_stopped() -> None:
    planned = plan(pod(), made("a"), failed_probes=frozenset(["a-0"]))
    assert [stop.container.name for stop in planned.stops] == ["a"]


def test_a_crash_loop_waits_in_upstreams_words() -> None:
    planned = plan(
        pod(), made("a", code=1, at=100.0, attempt=1), now=105.0, backoffs={"a": Backoff(10.0, 100.0)}
    )
    assert planned.starts == []
    assert planned.ready_at == 110.0
    assert planned.waiting["a"] == (
        "CrashLoopBackOff",
        "back-off 10s restarting failed container=a pod=p_ns(u)",
    )


def test_the_end_of_a_pod_stops_what_runs_within_its_grace() -> None:
    spec = pod("a", "b")
    spec["spec"]["terminationGracePeriodSeconds"] = 7
    seen = {"a": [made("a")], "b": [made("b", code=0)]}
    assert [(s.container.name, s.grace_s) for s in plan_end(spec, seen, "x").stops] == [("a", 7.0)]
    spec["metadata"]["deletionGracePeriodSeconds"] = 0
    assert [s.grace_s for s in plan_end(spec, seen, "x").stops] == [0.0]


def test_backoff_doubles_from_ten_seconds_to_five_minutes() -> None:
    backoff, now, waits = None, 0.0, []
    for _ in range(8):  # a container that ends as soon as it was started
        now = POLICY.ready_at(backoff, now)
        backoff = POLICY.next(backoff, now, now)
        waits.append(backoff.delay_s)
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
    assert POLICY.ready_at(None, 5.0) == 5.0  # the first restart is at once


def test_backoff_is_forgotten_after_a_run_of_more_than_ten_minutes() -> None:
    backoff = Backoff(300.0, updated_at=1_000.0)
    assert POLICY.ready_at(backoff, 1_600.0) == 1_900.0
    assert POLICY.ready_at(backoff, 1_601.0) == 1_601.0
    assert POLICY.next(backoff, 1_601.0, 1_601.0).delay_s == 10.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (0.5, "500ms"), (2.5, "2.5s")]
)
def test_durations_as_go_prints_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
    inits=st.integers(0, 2),
    mains=st.integers(1, 3),
    sidecar=st.booleans(),
    moves=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 137]), st.floats(0, 700)), max_size=30
    ),
)
def test_a_pods_life_keeps_its_promises(
    policy: str, inits: int, mains: int, sidecar: bool, moves: list[tuple[int, int, float]]
) -> None:
    """Whatever ends whenever: one attempt at a time, numbered without gaps, init containers before main
    ones, no restart against the policy, and plans that are followed lead to a plan with nothing to do."""
    spec = pod(
        *(f"m{i}" for i in range(mains)),
        inits=tuple(f"i{i}" for i in range(inits)),
        sidecars=("s",) if sidecar else (),
        policy=policy,
    )
    life = _Life(spec)
    for which, code, pause in moves:
        life.settle()
        life.end(which, code)
        life.now += pause
    life.settle()


class _Life:
    """A pod whose plans are carried out at once."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.now = 0.0
        self.attempts: dict[str, list[Container]] = {}
        self.backoffs: dict[str, Backoff] = {}

    def settle(self) -> None:
        for _ in range(20):
            started = frozenset(c[0].id for c in self.attempts.values() if c[0].running)
            planned = plan_pod(
                self.spec, Observed(self.attempts, self.now, self.backoffs, started=started), POLICY
            )
            if not planned.starts and not planned.stops:
                for name in planned.waiting:
                    assert planned.ready_at is not None
                    assert planned.ready_at > self.now, name
                return
            for start in planned.starts:
                self._start(start.container["name"], start.attempt)
            for stop in planned.stops:
                self.attempts[stop.container.name][0] = replace(stop.container, exit_code=143)
        raise AssertionError("the plan never comes to rest")

    def _start(self, name: str, attempt: int) -> None:
        before = self.attempts.setdefault(name, [])
        assert attempt == len(before)
        policy = self.spec["spec"]["restartPolicy"]
        if before:
            last = before[0]
            assert not last.running
            allowed = name == "s" or policy == "Always" or (policy == "OnFailure" and last.exit_code != 0)
            assert allowed or (name.startswith("i") and policy != "Never" and last.exit_code != 0)
            self.backoffs[name] = POLICY.next(self.backoffs.get(name), last.finished_at, self.now)
        if name.startswith("m"):
            for init in (c["name"] for c in self.spec["spec"]["initContainers"]):
                done = self.attempts[init][0]
                assert init == "s" or done.exit_code == 0
        before.insert(0, made(name, attempt=attempt, at=self.now))

    def end(self, which: int, code: int) -> None:
        running = [of_name for of_name in self.attempts.values() if of_name[0].running]
        if running:
            of_name = running[which % len(running)]
            of_name[0] = replace(of_name[0], exit_code=code, finished_at=self.now)
