"""A whole kubelet with real processes against a real API server over memory storage."""

# ruff: noqa: ASYNC110, ASYNC240  (what other processes do is polled, from small local files)

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from kubelet_world import kubelet_world, main_status, make_pod, phase

from raftkube.api.status import ApiError
from raftkube.client.endpoints import CONFIG_MAPS, EVENTS, LEASES, NODES, PODS
from raftkube.errors import ConfigError
from raftkube.kubelet.api_access import ApiPods
from raftkube.kubelet.runtimes import processes


def commands(root: str) -> list[list[str]]:
    """The command lines of all processes that carry a container's variable and work under `root`."""
    found = []
    for process in processes.everything():
        home = processes.environment(process.pid).get("HOME", "")
        line = processes.command_line(process.pid)
        if home.startswith(f"{root}/pods/") and line[:1] != ["/bin/sh"]:
            found.append(line)
    return sorted(found)


def waits_for(reason: str, pod: dict[str, Any]) -> bool:
    return bool(main_status(pod).get("state", {}).get("waiting", {}).get("reason") == reason)


async def until_commands(root: str, *wanted: list[str]) -> None:
    with trio.fail_after(20):
        while commands(root) != sorted(wanted):
            await trio.sleep(0.01)


async def test_a_status_does_not_revive_a_pod_that_was_declared_failed(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        pods = ApiPods(world.admin)
        seen = await world.admin.create(PODS, make_pod("a", "sleep", "60", node="elsewhere"))
        running = {"phase": "Running"}
        await world.admin.patch(PODS, "a", {"metadata": {"labels": {"x": "y"}}}, "default")
        after = await pods.write_status(seen, running)  # another change of the pod does no harm
        assert (phase(after), after["metadata"]["labels"]) == ("Running", {"x": "y"})
        await world.admin.patch(PODS, "a", {"status": {"phase": "Failed"}}, "default", subresource="status")
        with pytest.raises(ApiError) as refused:
            await pods.write_status(after, running)
        assert refused.value.code == 409
        assert phase(await world.admin.get(PODS, "a", "default")) == "Failed"


async def test_a_node_registers_and_keeps_its_lease(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        address = await world.start_kubelet()
        node = await world.admin.get(NODES, "node-1")
        conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
        assert conditions == {
            "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True",
        }  # fmt: skip
        assert node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == address.port
        assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.37.0+raftkube"
        assert node["status"]["addresses"][0] == {"type": "InternalIP", "address": "127.0.0.1"}
        assert int(node["status"]["capacity"]["cpu"]) == os.cpu_count()
        assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
        with trio.fail_after(10):
            while not (leases := (await world.admin.list(LEASES, "kube-node-lease")).items):
                await trio.sleep(0.01)
        lease = leases[0]
        assert lease["spec"]["holderIdentity"] == "node-1"
        assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


async def test_a_pod_runs_is_logged_and_is_deleted_with_its_processes(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        await world.create(PODS, make_pod("web", "sh", "-c", "echo hello; exec sleep 3600"))
        pod = await world.until("web", lambda pod: phase(pod) == "Running")
        assert main_status(pod)["ready"] is True
        assert main_status(pod)["containerID"].startswith("process://")
        assert pod["status"]["podIP"] == "127.0.0.1"
        await until_commands(world.root("node-1"), ["sleep", "3600"])
        reply = await world.kubelet_http().request("GET", "/containerLogs/default/web/main")
        assert (reply.status, reply.body) == (200, b"hello\n")
        through_api = await world.admin.exchange("GET", "/api/v1/namespaces/default/pods/web/log")
        assert through_api.body == b"hello\n"
        with trio.fail_after(10):
            while "ImageNotUnpacked" not in {
                event["reason"] for event in (await world.admin.list(EVENTS, "default")).items
            }:
                await trio.sleep(0.02)
        await world.admin.delete(PODS, "web", "default")
        await world.until_gone("web")
        await until_commands(world.root("node-1"))
        with trio.fail_after(10):
            while list(Path(world.root("node-1"), "pods").iterdir()):
                await trio.sleep(0.01)


async def test_a_pod_that_completes(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        await world.create(PODS, make_pod("job", "true", restartPolicy="Never"))
        pod = await world.until("job", lambda pod: phase(pod) == "Succeeded")
        ended = main_status(pod)["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
        await world.create(PODS, make_pod("bad", "sh", "-c", "exit 3", restartPolicy="Never"))
        pod = await world.until("bad", lambda pod: phase(pod) == "Failed")
        assert main_status(pod)["state"]["terminated"]["exitCode"] == 3


async def test_a_crashing_container_backs_off_and_counts(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        await world.create(PODS, make_pod("crash", "sh", "-c", "echo run; exit 2"))
        pod = await world.until("crash", lambda pod: main_status(pod).get("restartCount", 0) >= 3)
        pod = await world.until("crash", lambda pod: "waiting" in main_status(pod)["state"])
        assert phase(pod) == "Running"
        assert main_status(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert main_status(pod)["lastState"]["terminated"]["exitCode"] == 2
        reply = await world.kubelet_http().request("GET", "/containerLogs/default/crash/main?previous=true")
        assert reply.body == b"run\n"


async def test_init_containers_come_first(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        inits = [{"name": "first", "image": "x", "command": ["sh", "-c", "echo made > file"]}]
        await world.create(PODS, make_pod("two", "cat", "file", initContainers=inits, restartPolicy="Never"))
        pod = await world.until("two", lambda pod: phase(pod) in ("Succeeded", "Failed"))
        assert phase(pod) == "Succeeded"
        reply = await world.kubelet_http().request("GET", "/containerLogs/default/two/main")
        assert reply.body == b"made\n"


async def test_strict_images_wait_with_a_clear_message(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet(images="strict")
        await world.create(PODS, make_pod("web", "sleep", "3600"))
        waits = set()
        for reason in ("ErrImagePull", "ImagePullBackOff"):
            pod = await world.until("web", partial(waits_for, reason))
            assert phase(pod) == "Pending"
            waits.add(main_status(pod)["state"]["waiting"]["message"])
        assert all('image "web" cannot be unpacked' in message for message in waits)
        assert commands(world.root("node-1")) == []


async def test_a_missing_config_map_is_waited_for(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        source = {"configMapKeyRef": {"name": "settings", "key": "colour"}}
        env = {"env": [{"name": "COLOUR", "valueFrom": source}]}
        command = ["sh", "-c", "echo $COLOUR"]
        await world.create(PODS, make_pod("web", *command, container=env, restartPolicy="Never"))
        pod = await world.until("web", lambda pod: "waiting" in main_status(pod).get("state", {}))
        assert main_status(pod)["state"]["waiting"] == {
            "reason": "CreateContainerConfigError",
            "message": 'configmap "settings" not found',
        }
        await world.create(CONFIG_MAPS, {"metadata": {"name": "settings"}, "data": {"colour": "red"}})
        await world.until("web", lambda pod: phase(pod) == "Succeeded")
        reply = await world.kubelet_http().request("GET", "/containerLogs/default/web/main")
        assert reply.body == b"red\n"


async def test_probes_decide_readiness_and_restarts(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        gate = tmp_path / "gate"
        probes = {
            "readinessProbe": {"exec": {"command": ["test", "-e", str(gate)]}, "periodSeconds": 1},
            "livenessProbe": {
                "exec": {"command": ["test", "!", "-e", str(tmp_path / "sick")]},
                "periodSeconds": 1,
                "failureThreshold": 1,
            },
        }
        await world.create(PODS, make_pod("web", "sleep", "3600", container=probes))
        pod = await world.until("web", lambda pod: phase(pod) == "Running")
        assert main_status(pod)["ready"] is False
        gate.touch()
        await world.until("web", lambda pod: main_status(pod)["ready"] is True)
        (tmp_path / "sick").touch()
        await world.until("web", lambda pod: main_status(pod)["restartCount"] >= 1)


async def test_a_restarted_kubelet_finds_its_pods_as_they_are(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        await world.create(PODS, make_pod("stays", "sleep", "3600"))
        await world.create(PODS, make_pod("goes", "sleep", "3601"))
        stays = await world.until("stays", lambda pod: phase(pod) == "Running")
        await world.until("goes", lambda pod: phase(pod) == "Running")
        await world.stop_kubelet()
        await world.admin.delete(PODS, "goes", "default", grace_period_s=0)
        await until_commands(world.root("node-1"), ["sleep", "3600"], ["sleep", "3601"])
        await world.start_kubelet()
        await until_commands(world.root("node-1"), ["sleep", "3600"])
        now = await world.admin.get(PODS, "stays", "default")
        assert main_status(now)["containerID"] == main_status(stays)["containerID"]
        assert main_status(now)["restartCount"] == 0


async def test_a_deadline_ends_a_pod(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        await world.create(PODS, make_pod("late", "sleep", "3600", activeDeadlineSeconds=1))
        pod = await world.until("late", lambda pod: phase(pod) == "Failed")
        assert pod["status"]["reason"] == "DeadlineExceeded"
        await until_commands(world.root("node-1"))


async def test_logs_follow_until_the_container_ends(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        script = f"echo one; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo two"
        await world.create(PODS, make_pod("talk", "sh", "-c", script, restartPolicy="Never"))
        await world.until("talk", lambda pod: phase(pod) == "Running")
        heard = b""
        with trio.fail_after(20):
            async with world.kubelet_http().stream(
                "GET", "/containerLogs/default/talk/main?follow=true&timestamps=true"
            ) as stream:
                async for data in stream:
                    heard += data
                    (tmp_path / "go").touch()
        lines = [line.split(b" ", 1) for line in heard.splitlines()]
        assert [line[1] for line in lines] == [b"one", b"two"]
        assert all(line[0].endswith(b"Z") for line in lines)


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("/containerLogs/default/none/main", 404, 'pods \\"none\\" not found'),
        ("/containerLogs/default/web/other", 400, "container other is not valid for pod web"),
        ("/containerLogs/default/web/main?tailLines=x", 400, "tailLines: Invalid value: 'x'"),
        ("/containerLogs/default/web/main?sinceTime=x", 400, "not an RFC 3339 time"),
        ("/containerLogs/default/web/main?previous=1", 400, "previous terminated container"),
        ("/exec/default/web/main", 404, "does not serve exec yet"),
        ("/nothing", 404, "has nothing at '/nothing'"),
    ],
)
async def test_requests_that_cannot_be_answered(tmp_path: Path, target: str, status: int, text: str) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        await world.create(PODS, make_pod("web", "sleep", "3600"))
        await world.until("web", lambda pod: phase(pod) == "Running")
        reply = await world.kubelet_http().request("GET", target)
        assert reply.status == status
        assert text in reply.body.decode()


async def test_the_server_answers_admins_only(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        await world.create(PODS, make_pod("web", "sleep", "3600"))
        await world.until("web", lambda pod: phase(pod) == "Running")
        for target in ("/pods", "/containerLogs/default/web/main", "/metrics", "/stats/summary"):
            admin = await world.kubelet_http().request("GET", target)
            assert admin.status == 200, target
            other = await world.kubelet_http(user="eve", group="dev").request("GET", target)
            assert other.status == 403, target
        summary = await world.kubelet_http().request("GET", "/stats/summary")
        assert b'"workingSetBytes"' in summary.body
        metrics = await world.kubelet_http().request("GET", "/metrics")
        assert b"kubelet_running_containers 1\n" in metrics.body


async def test_a_root_directory_belongs_to_one_kubelet(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet()
        with pytest.raises(BaseExceptionGroup) as refused:
            async with kubelet_world(tmp_path) as other:
                await other.start_kubelet()
        assert refused.group_contains(ConfigError, match="is in use by another process")


async def test_many_fake_nodes_run_pods(tmp_path: Path) -> None:
    async with kubelet_world(tmp_path) as world:
        await world.start_kubelet("fake", runtime="fake", fake_nodes=20)
        nodes = (await world.admin.list(NODES)).items
        assert sorted(node["metadata"]["name"] for node in nodes) == sorted(f"fake-{i}" for i in range(20))
        for number in range(40):
            await world.create(PODS, make_pod(f"p{number}", node=f"fake-{number % 20}"))
        for number in range(40):
            pod = await world.until(f"p{number}", lambda pod: phase(pod) == "Running")
            assert main_status(pod)["containerID"].startswith("fake://")
        job = make_pod("job", node="fake-0", restartPolicy="Never")
        job["metadata"]["annotations"] = {"raftkube.dev/fake-run-seconds": "0.01"}
        await world.create(PODS, job)
        await world.until("job", lambda pod: phase(pod) == "Succeeded")
        for number in range(40):
            await world.admin.delete(PODS, f"p{number}", "default")
        for number in range(40):
            await world.until_gone(f"p{number}")
