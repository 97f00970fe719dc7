"""A pod's status: phase, conditions and container statuses as upstream computes them."""

from __future__ import annotations

from typing import Any

import pytest

from raftkube.kubelet.core.plan import Waiting
from raftkube.kubelet.core.pods import Container
from raftkube.kubelet.core.status import StatusInput, compute_status, differs

NOW = 1_700_000_000.0
CRASH = Waiting("CrashLoopBackOff", "back-off 10s")


def pod(*names: str, inits: tuple[str, ...] = (), policy: str = "Always", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 3},
        "spec": {
            "restartPolicy": policy,
            "initContainers": [{"name": name, "image": "i"} for name in inits],
            "containers": [{"name": name, "image": f"img-{name}"} for name in names],
        },
        "status": status,
    }


def made(name: str, *, attempt: int = 0, code: int | None = None) -> Container:
    return Container(f"{name}{attempt}", "u", name, attempt, "i", "stand-in://i", NOW - 60, NOW - 30, code)


def status(
    spec: dict[str, Any],
    *seen: Container,
    waiting: dict[str, Waiting] | None = None,
    ended: bool = False,
    ready: bool = True,
    failure: Waiting | None = None,
) -> dict[str, Any]:
    attempts: dict[str, list[Container]] = {}
    for container in seen:
        attempts.setdefault(container.name, []).append(container)
    running = frozenset(container.id for container in seen if container.running)
    known = StatusInput(
        attempts, waiting or {}, running if ready else frozenset(), running, "10.0.0.1", NOW, "process",
        ended=ended, failure=failure,
    )  # fmt: skip
    return compute_status(spec, known)


@pytest.mark.parametrize(
    ("policy", "codes", "ended", "phase"),
    [
        ("Always", (None, None), False, "Running"),
        ("Always", (None, 0), False, "Running"),
        ("Always", (1, 0), False, "Running"),
        ("Always", (0, 0), True, "Succeeded"),
        ("Always", (143, 0), True, "Failed"),
        ("OnFailure", (0, 0), False, "Succeeded"),
        ("OnFailure", (1, 0), False, "Running"),
        ("OnFailure", (1, None), False, "Running"),
        ("Never", (0, 0), False, "Succeeded"),
        ("Never", (1, 0), False, "Failed"),
        ("Never", (1, None), False, "Running"),
    ],
)
def test_phase_by_what_ended(policy: str, codes: tuple[int | None, ...], ended: bool, phase: str) -> None:
    seen = [made(name, code=code) for name, code in zip("ab", codes, strict=True)]
    assert status(pod("a", "b", policy=policy), *seen, ended=ended)["phase"] == phase


def test_a_container_that_was_never_started_keeps_the_pod_pending() -> None:
    found = status(pod("a", "b"), made("a"))
    assert found["phase"] == "Pending"
    assert found["containerStatuses"][1]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert found["containerStatuses"][1]["imageID"] == ""


def test_image_trouble_is_pending_with_its_reason() -> None:
    found = status(pod("a"), waiting={"a": Waiting("ImagePullBackOff", "no such image")})
    assert found["phase"] == "Pending"
    state = found["containerStatuses"][0]["state"]
    assert state == {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}


def test_a_crash_loop_is_running_waits_and_tells_how_it_ended() -> None:
    found = status(pod("a"), made("a", attempt=4, code=1), made("a", attempt=3, code=9), waiting={"a": CRASH})
    assert found["phase"] == "Running"
    one = found["containerStatuses"][0]
    assert one["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert one["lastState"]["terminated"]["exitCode"] == 1
    assert one["restartCount"] == 4
    assert (one["ready"], one["started"]) == (False, False)


def test_a_restarted_container_tells_of_its_last_end() -> None:
    one = status(pod("a"), made("a", attempt=1), made("a", code=137))["containerStatuses"][0]
    assert one["state"] == {"running": {"startedAt": "2023-11-14T22:12:20Z"}}
    assert one["lastState"]["terminated"] == {
        "exitCode": 137,
        "reason": "Error",
        "startedAt": "2023-11-14T22:12:20Z",
        "finishedAt": "2023-11-14T22:12:50Z",
        "containerID": "process://a0",
    }
    assert one["containerID"] == "process://a1"
    assert one["image"] == "img-a"
    assert one["imageID"] == "stand-in://i"
    assert one["restartCount"] == 1


def test_completed() -> None:
    one = status(pod("a", policy="Never"), made("a", code=0))["containerStatuses"][0]
    assert one["state"]["terminated"]["reason"] == "Completed"
    assert one["lastState"] == {}


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Always", None, "Pending"), ("Always", 1, "Pending"), ("Never", 1, "Failed"),
     ("OnFailure", 1, "Pending")],
)  # fmt: skip
def test_phase_while_init_containers_are_not_done(policy: str, code: int | None, phase: str) -> None:
    found = status(pod("a", inits=("x",), policy=policy), made("x", code=code))
    assert found["phase"] == phase
    if phase == "Pending":
        assert found["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
        assert _condition(found, "Initialized")["message"] == "containers with incomplete status: [x]"


def test_conditions_of_a_ready_pod() -> None:
    found = status(pod("a", inits=("x",)), made("x", code=0), made("a"))
    assert {c["type"]: c["status"] for c in found["conditions"]} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
        "PodScheduled": "True",
    }
    assert found["initContainerStatuses"][0]["ready"] is True
    assert found["podIP"] == found["hostIP"] == "10.0.0.1"
    assert found["observedGeneration"] == 3


@pytest.mark.parametrize(
    ("seen", "policy", "reason"),
    [((), "Always", "ContainersNotReady"), ((0,), "Never", "PodCompleted"), ((1,), "Never", "PodFailed")],
)
def test_why_a_pod_is_not_ready(seen: tuple[int, ...], policy: str, reason: str) -> None:
    found = status(pod("a", policy=policy), *(made("a", code=code) for code in seen))
    for kind in ("Ready", "ContainersReady"):
        assert _condition(found, kind)["status"] == "False"
        assert _condition(found, kind)["reason"] == reason


def test_readiness_gates_and_probes_hold_a_pod_back() -> None:
    spec = pod("a")
    assert _condition(status(spec, made("a"), ready=False), "Ready")["message"] == (
        "containers with unready status: [a]"
    )
    spec["spec"]["readinessGates"] = [{"conditionType": "x/y"}]
    found = status(spec, made("a"))
    assert _condition(found, "Ready")["reason"] == "ReadinessGatesNotReady"
    assert _condition(found, "ContainersReady")["status"] == "True"
    spec["status"] = {"conditions": [{"type": "x/y", "status": "True"}]}
    found = status(spec, made("a"))
    assert _condition(found, "Ready")["status"] == "True"
    assert _condition(found, "x/y") == {"type": "x/y", "status": "True"}


def test_transition_times_move_only_with_the_status() -> None:
    first = status(pod("a"), made("a"))
    for condition in first["conditions"]:
        condition["lastTransitionTime"] = "2001-01-01T00:00:00Z"
    later = status(pod("a", **first), made("a", code=1))
    times = {c["type"]: c["lastTransitionTime"] for c in later["conditions"]}
    assert times["Initialized"] == "2001-01-01T00:00:00Z"
    assert times["Ready"] == "2023-11-14T22:13:20Z"


def test_the_same_status_is_no_difference_and_a_change_is() -> None:
    spec = pod("a")
    first = status(spec, made("a"))
    spec["status"] = first | {"qosClass": "BestEffort"}
    spec["status"]["conditions"] = [*first["conditions"], {"type": "x/y", "status": "True"}]
    assert not differs(spec["status"], status(spec, made("a")))
    assert differs(spec["status"], status(spec, made("a", code=1)))
    assert differs({}, first)


def test_a_final_phase_stays_and_a_failure_of_the_kubelets_is_told() -> None:
    assert status(pod("a", policy="Never", phase="Succeeded"), made("a"))["phase"] == "Succeeded"
    found = status(pod("a"), made("a", code=143), ended=True, failure=Waiting("DeadlineExceeded", "late"))
    assert (found["phase"], found["reason"], found["message"]) == ("Failed", "DeadlineExceeded", "late")


def _condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(condition for condition in found["conditions"] if condition["type"] == kind)
