"""A real kubectl against the API server."""

from __future__ import annotations

from pathlib import Path

import trio
from api_world import config_map, world

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: web, command: [sleep, "3600"], ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


async def test_the_life_of_objects(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert "Server Version: v1.37" in await w.kubectl("version")
        namespaces = await w.kubectl("get", "namespaces")
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            assert f"{name}" in namespaces
        assert "Active" in namespaces
        assert "10.96.0.1" in await w.kubectl("get", "svc", "kubernetes")

        created = await w.kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
        assert created.split("\n")[:3] == [
            "deployment.apps/web created", "configmap/settings created", "service/web created",
        ]  # fmt: skip
        unchanged = await w.kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
        assert unchanged.count("unchanged") == 3, unchanged
        changed = await w.kubectl("apply", "-f", "-", stdin=DEPLOYMENT.replace("blue", "red"))
        assert "configmap/settings configured" in changed

        shown = await w.kubectl("get", "deployment", "web", "-o", "wide")
        assert shown.split()[:8] == [
            "NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR",
        ]  # fmt: skip
        assert "0/2" in shown
        assert "colour:\n----\nred" in await w.kubectl("describe", "configmap", "settings")
        assert "Replicas:" in await w.kubectl("describe", "deployment", "web")
        assert "scaled" in await w.kubectl("scale", "deployment", "web", "--replicas=5")
        assert await w.kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "5"

        assert "labeled" in await w.kubectl("label", "cm", "settings", "a=b")
        assert "annotated" in await w.kubectl("annotate", "cm", "settings", "c=d")
        assert "settings" in await w.kubectl("get", "cm", "-l", "a=b", "--no-headers")
        assert "No resources found" in await w.kubectl("get", "cm", "-l", "a=c")
        assert "deleted" in await w.kubectl("delete", "cm", "settings")
        assert "NotFound" in await w.kubectl("get", "cm", "settings", fails=True)
        assert 'deployment.apps "web" deleted' in await w.kubectl("delete", "deployment/web")


async def test_create_verbs_that_send_protobuf(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for arguments in (
            ("namespace", "shop"),
            ("configmap", "cm", "--from-literal=a=b", "-n", "shop"),
            ("secret", "generic", "s", "--from-literal=p=q", "-n", "shop"),
            ("serviceaccount", "sa", "-n", "shop"),
            ("deployment", "web", "--image=web", "--replicas=3", "-n", "shop", "--", "sleep", "3600"),
            ("service", "clusterip", "web", "--tcp=80:80", "-n", "shop"),
        ):
            assert "created" in await w.kubectl("create", *arguments)
        shown = await w.kubectl("get", "deploy", "web", "-n", "shop", "-o", "json")
        assert '"sleep"' in shown
        refused = await w.kubectl("create", "configmap", "cm", "-n", "shop", fails=True)
        assert 'configmaps "cm" already exists' in refused
        assert 'namespaces "nowhere" not found' in await w.kubectl(
            "create", "configmap", "cm", "-n", "nowhere", fails=True
        )


async def test_edit_patch_explain_and_diff(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
        added = '[{"op":"add","path":"/data/x","value":"y"}]'
        await w.kubectl("patch", "cm", "settings", "--type=json", "-p", added)
        data = await w.kubectl("get", "cm", "settings", "-o", "jsonpath={.data}")
        assert data == '{"colour":"blue","x":"y"}'
        assert "restarted" in await w.kubectl("rollout", "restart", "deployment/web")
        assert "FIELD: replicas <integer>" in await w.kubectl("explain", "deployment.spec.replicas")
        assert "deployments" in await w.kubectl("api-resources")
        bad = DEPLOYMENT.replace("replicas: 2", "replicaz: 2")
        assert "unknown field" in await w.kubectl("apply", "-f", "-", stdin=bad, fails=True)
        dry = await w.kubectl("create", "cm", "dry", "--dry-run=server")
        assert "created (server dry run)" in dry
        assert "NotFound" in await w.kubectl("get", "cm", "dry", fails=True)


async def test_get_watch_shows_changes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.kubectl("create", "cm", "one", "--from-literal=a=b")
        seen, process = b"", await w.open_kubectl("get", "cm", "-w", "--no-headers")
        assert process.stdout is not None
        with trio.fail_after(30):
            while b"one" not in seen:
                seen += await process.stdout.receive_some()
            await w.client().post("/api/v1/namespaces/default/configmaps", config_map("two"))
            while b"two" not in seen:
                seen += await process.stdout.receive_some()
        process.kill()
        await process.wait()
        assert seen.index(b"one") < seen.index(b"two")
