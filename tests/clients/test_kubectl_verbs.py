"""What a real kubectl says, verb by verb, where only the API server is asked: no controllers, no kubelets."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import trio
from api_world import World, pod, world

from raftkube.apiserver import bootstrap

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: web
        ports: [{containerPort: 80, name: http}, {containerPort: 81, name: admin}]
        env: [{name: COLOUR, value: blue}, {name: SIZE, value: small}]
      - {name: side, image: side}
"""
OTHER_KINDS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}, {name: admin, port: 81}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue, size: small}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
"""
JOB = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\n"
OLD_POD = "apiVersion: v9\nkind: Pod\nmetadata: {name: old}\n"
SERVICES = "/api/v1/namespaces/default/services"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


async def jsonpath(w: World, *what: str, path: str) -> str:
    return await w.kubectl("get", *what, "-o", f"jsonpath={path}")


async def test_apply_of_changed_lists_diff_and_prune(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        text = DEPLOYMENT + "---" + OTHER_KINDS
        await w.kubectl("apply", "-f", "-", stdin=text)
        changed = text.replace(", {containerPort: 81, name: admin}", "")
        changed = changed.replace("{name: SIZE, value: small}", "{name: SHAPE, value: round}")
        changed = changed.replace("{name: admin, port: 81}", "{name: other, port: 82}")
        changed = changed.replace("size: small", "shape: round")
        difference = await w.kubectl("diff", "-f", "-", stdin=changed, fails=True)
        for line in ("-          - containerPort: 81", "+    shape: round", "-    size: small"):
            assert line.replace(" ", "") in difference.replace(" ", "")
        applied = await w.kubectl("apply", "-f", "-", stdin=changed)
        assert applied.count("configured") == 3
        assert applied.count("unchanged") == 1
        container = "{.spec.template.spec.containers[0]"
        assert await jsonpath(w, "deploy", "web", path=container + ".ports[*].containerPort}") == "80"
        assert await jsonpath(w, "deploy", "web", path=container + ".env[*].name}") == "COLOUR SHAPE"
        assert await jsonpath(w, "svc", "web", path="{.spec.ports[*].port}") == "80 82"
        assert await jsonpath(w, "cm", "settings", path="{.data}") == '{"colour":"blue","shape":"round"}'
        assert (await w.kubectl("apply", "-f", "-", stdin=changed)).count("unchanged") == 4
        assert await w.kubectl("diff", "-f", "-", stdin=changed) == ""
        assert "colour: blue" in await w.kubectl("apply", "view-last-applied", "cm", "settings")


async def test_edit_replace_and_patch(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.kubectl("create", "-f", "-", stdin=DEPLOYMENT + "---" + OTHER_KINDS)
        again = await w.kubectl("create", "-f", "-", stdin=DEPLOYMENT, fails=True)
        assert 'deployments.apps "web" already exists' in again
        changed = DEPLOYMENT.replace("replicas: 2", "replicas: 4")
        assert "replaced" in await w.kubectl("replace", "-f", "-", stdin=changed)
        assert await jsonpath(w, "deploy", "web", path="{.spec.replicas}") == "4"
        forced = await w.kubectl("replace", "--force", "-f", "-", stdin=OTHER_KINDS)
        assert forced.count("deleted") == forced.count("replaced") == 3
        patched = ("patch", "deploy", "web", "-p")
        strategic = '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"side:2"}]}}}}'
        assert await w.kubectl(*patched, strategic) == "deployment.apps/web patched\n"
        assert await w.kubectl(*patched, strategic) == "deployment.apps/web patched (no change)\n"
        images = await jsonpath(w, "deploy", "web", path="{.spec.template.spec.containers[*].image}")
        assert images == "web side:2"
        unknown = await w.kubectl(*patched, '{"spec":{"replicaz":1}}')
        assert 'Warning: unknown field "spec.replicaz"' in unknown
        wrong = await w.kubectl(*patched, '{"spec":{"replicas":"x"}}', "--type=merge", fails=True)
        assert wrong.startswith("The request is invalid: patch: Invalid value: ")
        assert "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas" in wrong
        tested = '[{"op":"test","path":"/spec/replicas","value":7}]'
        refused = await w.kubectl(*patched, tested, "--type=json", fails=True)
        assert "operation 0 (test /spec/replicas): test failed" in refused
        assert "class" not in refused
        other_kind = await w.kubectl(*patched, '{"kind":"Pod"}', "--type=merge", fails=True)
        assert "a patch may not change kind (Deployment) to Pod" in other_kind


async def test_the_last_label_takes_labels_along(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.kubectl("create", "cm", "a")
        assert "labeled" in await w.kubectl("label", "cm", "a", "x=y")
        assert "not labeled" in await w.kubectl("label", "cm", "a", "x=y")
        assert "unlabeled" in await w.kubectl("label", "cm", "a", "x-")
        assert "annotated" in await w.kubectl("annotate", "cm", "a", "c=d")
        assert "annotated" in await w.kubectl("annotate", "cm", "a", "c-")
        left = orjson.loads(await w.kubectl("get", "cm", "a", "-o", "json"))["metadata"]
        assert {"labels", "annotations"}.isdisjoint(left)
        empty = {"metadata": {"name": "b", "labels": {}, "finalizers": [], "ownerReferences": []}}
        made = (await w.client().post("/api/v1/namespaces/default/configmaps", empty)).body["metadata"]
        assert {"labels", "finalizers", "ownerReferences"}.isdisjoint(made)


async def test_a_strict_patch_is_422_as_upstreams(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.kubectl("create", "-f", "-", stdin=DEPLOYMENT)
        client = w.client()
        for target in (f"{DEPLOYMENTS}/web", f"{DEPLOYMENTS}/web/scale"):
            answer = await client.patch(f"{target}?fieldValidation=Strict", {"spec": {"replicaz": 1}})
            assert (answer.code, answer.reason) == (422, "Invalid")
            assert 'strict decoding error: unknown field "spec.replicaz"' in answer.body["message"]
            assert answer.body["details"]["causes"][0]["field"] == "patch"


async def test_generators_of_services_give_node_ports(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for kind in ("nodeport", "loadbalancer", "clusterip"):
            await w.kubectl("create", "service", kind, kind, "--tcp=80:8080")
        await w.kubectl("create", "service", "externalname", "outside", "--external-name=example.com")
        rows = (await w.kubectl("get", "svc", "--no-headers")).splitlines()
        ports = {row.split()[0]: row.split()[4] for row in rows}
        for name in ("nodeport", "loadbalancer"):
            inner, _, outer = ports[name].removesuffix("/TCP").partition(":")
            assert inner == "80"
            assert 30_000 <= int(outer) <= 32_767
        assert (ports["clusterip"], ports["outside"]) == ("80/TCP", "<none>")
        assert "NodePort:" in await w.kubectl("describe", "svc", "nodeport")
        await w.kubectl("patch", "svc", "clusterip", "-p", '{"spec":{"type":"NodePort"}}')
        assert await jsonpath(w, "svc", "clusterip", path="{.spec.ports[0].nodePort}") != ""
        await w.kubectl("patch", "svc", "clusterip", "-p", '{"spec":{"type":"ClusterIP"}}')
        assert await jsonpath(w, "svc", "clusterip", path="{.spec.ports[0].nodePort}") == ""


async def test_node_ports_are_unique_and_come_back(tmp_path: Path) -> None:
    async with world(tmp_path, servers=2) as w:
        clients = [w.client(server=0), w.client(server=1)]

        def service(name: str, *ports: dict[str, object], type: str = "NodePort") -> dict[str, object]:
            return {"metadata": {"name": name}, "spec": {"type": type, "ports": list(ports)}}

        fixed = service("fixed", {"port": 80, "nodePort": 30080})
        assert (await clients[0].post(SERVICES, fixed)).code == 201
        taken = await clients[1].post(SERVICES, service("taken", {"port": 80, "nodePort": 30080}))
        assert taken.code == 422
        assert taken.body["details"]["causes"] == [{
            "reason": "FieldValueInvalid", "field": "spec.ports[0].nodePort",
            "message": "Invalid value: 30080: provided port is already allocated",
        }]  # fmt: skip
        outside = await clients[1].post(SERVICES, service("outside", {"port": 80, "nodePort": 80}))
        assert (outside.code, "valid ports is 30000-32767" in outside.body["message"]) == (422, True)
        dns = service("dns", {"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"})
        both = (await clients[0].post(SERVICES, dns)).body["spec"]["ports"]
        assert both[0]["nodePort"] == both[1]["nodePort"]
        moved = await clients[0].patch(f"{SERVICES}/fixed", {"spec": {"type": "ClusterIP"}})
        assert "nodePort" not in moved.body["spec"]["ports"][0]
        assert (await clients[1].post(SERVICES, service("next", {"port": 80, "nodePort": 30080}))).code == 201
        assert (await clients[0].delete(f"{SERVICES}/next")).code == 200
        last = service("last", {"port": 80, "nodePort": 30080}, type="LoadBalancer")
        assert (await clients[0].post(SERVICES, last)).code == 201
        none = service("none", {"port": 80}, type="LoadBalancer")
        none["spec"]["allocateLoadBalancerNodePorts"] = False  # type: ignore[index]
        unallocated = await clients[0].post(SERVICES, none)
        assert "nodePort" not in unallocated.body["spec"]["ports"][0]


async def test_what_the_server_needs_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "KEEP_PERIOD_S", 0.05)
    async with world(tmp_path, servers=2) as w:
        client = w.client()
        first = (await client.get(f"{SERVICES}/kubernetes")).body
        assert 'service "kubernetes" deleted' in await w.kubectl("delete", "all", "--all")
        with trio.fail_after(30):
            while (again := await client.get(f"{SERVICES}/kubernetes")).code == 404:
                await trio.sleep(0.02)
        assert again.body["metadata"]["uid"] != first["metadata"]["uid"]
        assert again.body["spec"]["clusterIP"] == first["spec"]["clusterIP"]


async def test_scale_and_its_subresource_as_a_table(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.kubectl("create", "-f", "-", stdin=DEPLOYMENT)
        shown = await w.kubectl("get", "deploy", "web", "--subresource=scale")
        assert shown.splitlines()[0].split() == ["NAME", "DESIRED", "AVAILABLE", "AGE"]
        assert shown.splitlines()[1].split()[:3] == ["web", "2", "0"]
        refused = await w.kubectl("scale", "deploy/web", "--replicas=1", "--current-replicas=5", fails=True)
        assert "Expected replicas to be 5, was 2" in refused
        patched = ("patch", "deploy", "web", "--subresource=scale", "--type=merge", "-p")
        assert "patched" in await w.kubectl(*patched, '{"spec":{"replicas":3}}')
        assert await jsonpath(w, "deploy", "web", path="{.spec.replicas}") == "3"


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("apply", "-f", "-"), JOB, 'no matches for kind "Job" in version "batch/v1"'),
        (("apply", "-f", "-"), OLD_POD, 'no matches for kind "Pod" in version "v9"'),
        (("apply", "--server-side", "-f", "-"), OTHER_KINDS, "Server-side apply not available on the server"),
        (("create", "job", "once", "--image=web"), "", "not served here: jobs in batch/v1"),
        (("create", "token", "default"), "", "not served here: serviceaccounts/token in v1"),
        (("auth", "can-i", "get", "pods"), "",
         "not served here: selfsubjectaccessreviews in authorization.k8s.io/v1"),
        (("auth", "whoami"), "", "selfsubjectreviews API is not enabled"),
        (("top", "nodes"), "", "Metrics API not available"),
        (("exec", "one", "--", "ls"), "", "not served here: pods/exec in v1"),
        (("attach", "one"), "", "not served here: pods/attach in v1"),
        (("port-forward", "one", "0:80"), "", "not served here: pods/portforward in v1"),
        (("debug", "one", "--image=web"), "", "ephemeralcontainers"),
        (("get", "jobs"), "", 'the server doesn\'t have a resource type "jobs"'),
        (("delete", "namespace", "default"), "", "this namespace may not be deleted"),
    ],
    ids=lambda value: "-".join(value)[:30] if isinstance(value, tuple) else "",
)  # fmt: skip
async def test_what_is_not_served_is_named(
    tmp_path: Path, arguments: tuple[str, ...], stdin: str, said: str
) -> None:
    async with world(tmp_path) as w:
        running = pod("one")
        assert (await w.client().post(PODS, running)).code == 201
        binding = {"metadata": {"name": "one"}, "target": {"kind": "Node", "name": "node-1"}}
        assert (await w.client().post(f"{PODS}/one/binding", binding)).code == 201
        assert (await w.client().patch(f"{PODS}/one/status", {"status": {"phase": "Running"}})).code == 200
        assert said in await w.kubectl(*arguments, stdin=stdin, fails=True)


async def test_discovery_announces_only_what_is_answered(tmp_path: Path) -> None:
    """Each verb of each subresource, and each of each resource, gets another answer than 404 or 405."""
    async with world(tmp_path) as w:
        client = w.client()
        methods = {"get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH"}
        asked = 0
        for version in ("/api/v1", "/apis/apps/v1", "/apis/coordination.k8s.io/v1"):
            for entry in (await client.get(version)).body["resources"]:
                name, _, sub = entry["name"].partition("/")
                if not sub:
                    continue
                where = "/namespaces/default" if entry["namespaced"] else ""
                target = f"{version}{where}/{name}/nobody/{sub}"
                for verb in entry["verbs"]:
                    body = None if verb == "get" else {"metadata": {"name": "nobody"}}
                    kind = "application/merge-patch+json" if verb == "patch" else "application/json"
                    answer = await client.request(methods[verb], target, body, content_type=kind)
                    asked += 1
                    assert answer.code != 405, (verb, target, answer.raw)
                    assert "not served here" not in answer.raw.decode(), (verb, target)
        assert asked > 15


async def test_the_document_of_openapi_v2(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        plain = await client.get("/openapi/v2")
        assert plain.body["swagger"] == "2.0"
        media = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
        binary = await client.get("/openapi/v2", Accept=media)
        assert binary.headers["content-type"] == media
        assert binary.raw.startswith(b"\x0a\x032.0")
        assert orjson.loads((await client.get("/")).raw)["paths"].count("/openapi/v2") == 1
