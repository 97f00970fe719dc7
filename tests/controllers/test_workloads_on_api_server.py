"""Deployments, ReplicaSets and the garbage collector on real API servers: what kubectl's users see."""

from __future__ import annotations

from pathlib import Path

import trio
from controlled_world import ALL, Cluster, cluster, deployment, gone, holder, rolled_out, until

from raftkube.client.endpoints import DEPLOYMENTS, EVENTS, LEASES, PODS, REPLICA_SETS
from raftkube.controllers.core.rollout import REVISION


async def test_what_kubectl_users_do_first(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        kubectl = c.world.kubectl
        await kubectl("create", "deployment", "web", "--image=web", "--replicas=3", "--", "sleep", "3600")
        told = await kubectl("rollout", "status", "deployment/web", "--timeout=40s")
        assert 'deployment "web" successfully rolled out' in told
        assert len(await c.names(PODS)) == 3
        assert (await kubectl("get", "deployment", "web", "--no-headers")).split()[:4] == [
            "web", "3/3", "3", "3",
        ]  # fmt: skip

        await kubectl("scale", "deployment/web", "--replicas=5")
        await kubectl("rollout", "status", "deployment/web", "--timeout=40s")
        assert len(await c.names(PODS)) == 5

        await kubectl("set", "image", "deployment/web", "web=web:2")
        await kubectl("rollout", "status", "deployment/web", "--timeout=40s")
        assert {p["spec"]["containers"][0]["image"] for p in await c.objects(PODS)} == {"web:2"}
        history = await kubectl("rollout", "history", "deployment/web")
        assert [line.split()[0] for line in history.splitlines()[2:] if line.strip()] == ["1", "2"]

        await kubectl("rollout", "undo", "deployment/web")
        await kubectl("rollout", "status", "deployment/web", "--timeout=40s")
        assert {p["spec"]["containers"][0]["image"] for p in await c.objects(PODS)} == {"web"}
        described = await kubectl("describe", "deployment", "web")
        assert "Scaled up replica set web-" in described
        assert "NewReplicaSetAvailable" in described

        await kubectl("delete", "deployment", "web")
        await until("everything is gone", lambda: gone(c, *ALL))


async def test_a_lost_pod_is_replaced_and_every_change_is_told(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.admin.create(DEPLOYMENTS, deployment(2))
        await until("rolled out", lambda: rolled_out(c))
        first, second = await c.names(PODS)
        await c.admin.delete(PODS, first, "default", grace_period_s=0)

        async def replaced() -> bool:
            names = await c.names(PODS)
            return len(names) == 2 and second in names and first not in names

        await until("another took its place", replaced)
        (replica_set,) = await c.objects(REPLICA_SETS)
        assert replica_set["metadata"]["labels"]["pod-template-hash"] in replica_set["metadata"]["name"]
        pod = (await c.objects(PODS))[0]
        assert pod["metadata"]["generateName"] == replica_set["metadata"]["name"] + "-"
        assert pod["metadata"]["ownerReferences"][0]["uid"] == replica_set["metadata"]["uid"]

        async def told() -> bool:
            messages = [event["message"] for event in await c.objects(EVENTS)]
            return len([text for text in messages if text.startswith("Created pod: ")]) == 3 and any(
                text.startswith("Scaled up replica set web-") for text in messages
            )

        await until("events tell of it", told)


async def test_a_stuck_rollout_keeps_what_runs(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.admin.create(DEPLOYMENTS, deployment(3, progressDeadlineSeconds=2))
        await until("rolled out", lambda: rolled_out(c))
        await c.set_image("stuck:1")

        async def timed_out() -> bool:
            status = (await c.admin.get(DEPLOYMENTS, "web", "default"))["status"]
            return any(cond.get("reason") == "ProgressDeadlineExceeded" for cond in status["conditions"])

        await until("the deadline passed", timed_out)
        images = sorted(p["spec"]["containers"][0]["image"] for p in await c.objects(PODS))
        assert images == ["stuck:1", "web:1", "web:1", "web:1"]
        told = await c.world.kubectl("rollout", "status", "deployment/web", "--timeout=20s", fails=True)
        assert "exceeded its progress deadline" in told
        await c.world.kubectl("rollout", "undo", "deployment/web")
        await until("the old one is back", lambda: rolled_out(c))


async def test_pausing_scaling_and_resuming(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.admin.create(DEPLOYMENTS, deployment(2, revisionHistoryLimit=0))
        await until("rolled out", lambda: rolled_out(c))
        await c.world.kubectl("rollout", "pause", "deployment/web")
        await c.set_image("web:2")
        await c.world.kubectl("scale", "deployment/web", "--replicas=4")

        async def scaled() -> bool:
            return [p["spec"]["containers"][0]["image"] for p in await c.objects(PODS)] == ["web:1"] * 4

        await until("scaled, on the old template", scaled)
        await c.world.kubectl("rollout", "resume", "deployment/web")
        await c.world.kubectl("rollout", "status", "deployment/web", "--timeout=40s")

        async def history_is_clean() -> bool:
            sets = await c.objects(REPLICA_SETS)
            return [rs["metadata"]["annotations"][REVISION] for rs in sets] == ["2"]

        await until("old ReplicaSets are cleaned up", history_is_clean)


async def test_recreate_waits_for_old_pods(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.admin.create(DEPLOYMENTS, deployment(2, strategy={"type": "Recreate"}))
        await until("rolled out", lambda: rolled_out(c))
        old = set(await c.names(PODS))
        await c.set_image("web:2")
        await until("rolled out anew", lambda: rolled_out(c))
        assert old.isdisjoint(await c.names(PODS))


async def test_foreground_deletion_ends_with_the_owner(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.admin.create(DEPLOYMENTS, deployment(3))
        await until("rolled out", lambda: rolled_out(c))
        pods = set(await c.names(PODS))
        answer = await c.admin.delete(DEPLOYMENTS, "web", "default", propagation="Foreground")
        assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
        await until("the Deployment is gone", lambda: gone(c, DEPLOYMENTS))
        assert await gone(c, REPLICA_SETS, PODS), "dependents went first"
        await until("no pod was made meanwhile", lambda: _is_in(pods, c.deleted_pods))


async def _is_in(wanted: set[str], found: list[str]) -> bool:
    return set(found) == wanted


async def test_orphaned_dependents_stay_and_are_adopted_again(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.admin.create(DEPLOYMENTS, deployment(2))
        await until("rolled out", lambda: rolled_out(c))
        pods, sets = await c.names(PODS), await c.names(REPLICA_SETS)
        await c.world.kubectl("delete", "deployment", "web", "--cascade=orphan")
        await until("the Deployment is gone", lambda: gone(c, DEPLOYMENTS))
        (replica_set,) = await c.objects(REPLICA_SETS)
        assert not replica_set["metadata"].get("ownerReferences")
        created = await c.admin.create(DEPLOYMENTS, deployment(2))
        await until("rolled out", lambda: rolled_out(c))
        assert (await c.names(PODS), await c.names(REPLICA_SETS)) == (pods, sets)
        (replica_set,) = await c.objects(REPLICA_SETS)
        assert replica_set["metadata"]["ownerReferences"][0]["uid"] == created["metadata"]["uid"]


async def test_a_pod_that_leaves_by_its_labels_is_released(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.admin.create(DEPLOYMENTS, deployment(1))
        await until("rolled out", lambda: rolled_out(c))
        (name,) = await c.names(PODS)
        await c.patch(PODS, name, {"metadata": {"labels": {"app": "debug"}}})

        async def released() -> bool:
            pod = await c.admin.get(PODS, name, "default")
            return not pod["metadata"].get("ownerReferences") and len(await c.names(PODS)) == 2

        await until("it is free and replaced", released)


async def test_another_controller_manager_takes_over_in_the_middle(tmp_path: Path) -> None:
    async with cluster(tmp_path, servers=2) as c:
        first = c.start("controller-manager-1")
        await c.admin.create(DEPLOYMENTS, deployment(6))
        await until("rolled out", lambda: rolled_out(c))
        c.start("controller-manager-2")
        await c.set_image("web:2")
        await until("the rollout has begun", lambda: _has_image(c, "web:2"))
        first.network.cut()
        await until("the second leads", lambda: _holds(c, "controller-manager-2"))
        await until("the rollout completes", lambda: rolled_out(c))
        assert {p["spec"]["containers"][0]["image"] for p in await c.objects(PODS)} == {"web:2"}
        assert len(await c.names(PODS)) == 6
        assert len(await c.names(REPLICA_SETS)) == 2
        assert c.most_active <= 6 + 2, "never more than desired and surge"


async def _has_image(c: Cluster, image: str) -> bool:
    return any(p["spec"]["containers"][0]["image"] == image for p in await c.objects(PODS))


async def _holds(c: Cluster, name: str) -> bool:
    return await holder(c) == name


async def test_a_deposed_controller_manager_ends(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        first = c.start()
        await until("it leads", lambda: _holds(c, "controller-manager-1"))
        await c.admin.create(DEPLOYMENTS, deployment(1))
        await until("rolled out", lambda: rolled_out(c))
        await c.admin.delete(LEASES, "kube-controller-manager", "kube-system")
        await c.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 3}})
        with trio.fail_after(20):
            await first.over.wait()
        assert "409" in first.ended[0] or "404" in first.ended[0]
        assert len(await c.names(PODS)) == 1, "a deposed leader writes nothing"
