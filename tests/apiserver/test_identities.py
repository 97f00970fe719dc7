"""Who may do what; health, metrics, discovery; logs through the kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from api_world import Json, World, config_map, pod, world

from raftkube.errors import NoLeader, Overloaded, ProposalTimeout, StoreError
from raftkube.net import Address, TlsFiles
from raftkube.net.http import AnyResponse, BodySender, Request, Response, StreamResponse
from raftkube.net.http_server import serve_http

CM = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
NODES = "/api/v1/nodes"


async def test_anonymous_sees_health_version_and_discovery_only(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        nobody = w.anonymous()
        public = ("/healthz", "/livez", "/readyz", "/readyz/ping", "/version", "/version/", "/api", "/api/v1",
                  "/apis", "/apis/apps/v1", "/openapi/v3", "/openapi/v3/api/v1")  # fmt: skip
        for path in public:
            assert (await nobody.get(path)).code == 200, path
        refused = await nobody.get(PODS)
        assert (refused.code, refused.reason) == (403, "Forbidden")
        assert refused.body["message"] == (
            'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" '
            'in the namespace "default"'
        )
        metrics = await nobody.get("/metrics")
        assert metrics.body["message"] == 'forbidden: User "system:anonymous" cannot get path "/metrics"'
        token = await nobody.get(PODS, Authorization="Bearer abc")
        assert (token.code, token.reason) == (401, "Unauthorized")


@pytest.mark.parametrize(
    ("method", "target", "text"),
    [
        ("GET", NODES, 'cannot list resource "nodes" in API group "" at the cluster scope'),
        ("GET", f"{CM}/a", 'configmaps "a" is forbidden: User "stranger" cannot get resource "configmaps"'),
        ("GET", f"{PODS}/a/log", 'cannot get resource "pods/log"'),
        ("GET", f"{CM}?watch=1", 'cannot watch resource "configmaps"'),
        ("POST", "/apis/apps/v1/namespaces/x/deployments",
         'cannot create resource "deployments" in API group "apps" in the namespace "x"'),
    ],
)  # fmt: skip
async def test_a_stranger_is_refused_in_upstreams_words(
    tmp_path: Path, method: str, target: str, text: str
) -> None:
    async with world(tmp_path) as w:
        answer = await w.client("stranger", "some-group").request(method, target, {})
        assert (answer.code, answer.reason) == (403, "Forbidden")
        assert text in answer.body["message"]


async def test_control_identities_stay_within_their_tasks(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler = w.client("system:kube-scheduler", token=1)
        assert (await scheduler.get(PODS)).code == 200
        assert (await scheduler.get("/api/v1/namespaces/default/secrets")).code == 403
        assert (await scheduler.post(PODS, pod("a"))).code == 403
        manager = w.client("system:kube-controller-manager", token=1)
        assert (await manager.get("/api/v1/namespaces/default/secrets")).code == 200
        assert (await manager.post(NODES, {"metadata": {"name": "n"}})).code == 403


async def test_a_kubelet_stays_within_its_node(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        admin, kubelet = w.client(), w.client("system:node:node-1", "system:nodes")
        assert (await kubelet.post(NODES, {"metadata": {"name": "node-1"}})).code == 201
        assert (await kubelet.post(NODES, {"metadata": {"name": "node-2"}})).code == 403
        status = {"status": {"phase": "Running"}}
        assert (await kubelet.patch(f"{NODES}/node-1/status", {"status": {}})).code == 200
        await admin.post(NODES, {"metadata": {"name": "node-2"}})
        assert (await kubelet.patch(f"{NODES}/node-2/status", {"status": {}})).code == 403
        for number in (1, 2):
            body = pod(f"p{number}")
            body["spec"]["volumes"] = [{"name": "v", "configMap": {"name": f"cm{number}"}}]
            await admin.post(PODS, body)
            await admin.post(f"{PODS}/p{number}/binding", {"target": {"name": f"node-{number}"}})
            await admin.post(CM, config_map(f"cm{number}"))
        assert (await kubelet.patch(f"{PODS}/p1/status", status)).code == 200
        other = await kubelet.patch(f"{PODS}/p2/status", status)
        assert (other.code, other.reason) == (403, "Forbidden")
        assert (await kubelet.delete(f"{PODS}/p2")).code == 403
        assert (await kubelet.get(f"{CM}/cm1")).code == 200
        assert (await kubelet.get(f"{CM}/cm2")).code == 403
        assert (await kubelet.get(CM)).code == 403
        assert (await kubelet.delete(f"{PODS}/p1?gracePeriodSeconds=0")).code == 200
        # A kubelet may simulate nodes that are numbered after it, and no others.
        assert (await kubelet.post(NODES, {"metadata": {"name": "node-1-7"}})).code == 201
        assert (await kubelet.patch(f"{NODES}/node-1-7/status", {"status": {}})).code == 200
        for name in ("node-1-x", "node-12", "node-1-"):
            assert (await kubelet.post(NODES, {"metadata": {"name": name}})).code == 403, name


async def test_health_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path) as w:
        client = w.anonymous()
        verbose = (await client.get("/readyz?verbose")).raw.decode()
        assert "[+]watch-cache ok" in verbose
        assert verbose.endswith("readyz check passed\n")

        async def no_leader() -> int:
            raise NoLeader("no member is known to lead")

        monkeypatch.setattr(w.storage, "current_revision", no_leader)
        failed = await client.get("/readyz")
        assert failed.code == 500
        assert "[-]store failed: no member is known to lead" in failed.raw.decode()
        assert (await client.get("/livez")).code == 200
        assert (await client.get("/readyz?exclude=store")).code == 200
        assert (await client.get("/healthz/nothing")).code == 404


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (ProposalTimeout("no answer"), 504, "Timeout"),
        (NoLeader("nobody leads"), 503, "ServiceUnavailable"),
        (Overloaded("too much", retry_after_s=3), 429, "TooManyRequests"),
    ],
    ids=["indefinite", "no leader", "overloaded"],
)
async def test_what_the_store_says_becomes_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: StoreError, code: int, reason: str
) -> None:
    async with world(tmp_path) as w:

        async def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(w.storage, "txn", fail)
        answer = await w.client().post(CM, config_map("a"))
        assert (answer.code, answer.reason) == (code, reason)
        if code == 504:  # client-go sends whatever has this header again by itself
            assert "retry-after" not in answer.headers
        else:
            assert answer.body["details"]["retryAfterSeconds"] >= 1
            assert int(answer.headers["retry-after"]) == answer.body["details"]["retryAfterSeconds"]


async def test_metrics_carry_upstreams_names(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        await client.post(CM, config_map("a"))
        await client.get("/api/v1/gadgets/made-up-by-a-client")
        text = (await client.get("/metrics")).raw.decode()
        labels = 'code="201",group="",resource="configmaps",subresource="",verb="CREATE",version="v1"'
        assert f"apiserver_request_total{{{labels}}} 1.0" in text
        assert 'apiserver_storage_objects{resource="namespaces"} 4.0' in text
        assert "made-up" not in text
        assert "gadgets" not in text


async def test_discovery_is_revalidated_by_etag(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        for path in ("/apis/apps/v1", "/openapi/v3", "/openapi/v3/apis/apps/v1"):
            etag = (await client.get(path)).headers["etag"]
            again = await client.get(path, If_None_Match=etag)
            assert (again.code, again.raw) == (304, b""), path


@asynccontextmanager
async def kubelet(w: World, asked: list[str]) -> AsyncIterator[Address]:
    """Answers log requests as a kubelet does."""
    more = trio.Event()

    async def follow(sender: BodySender) -> None:
        await sender.send(b"first\n")
        await more.wait()
        await sender.send(b"second\n")

    async def handler(request: Request) -> AnyResponse:
        assert request.peer is not None
        asked.append(f"{request.peer.common_name} {request.path}?{request.query}")
        if "missing" in request.path:
            return Response(404, b"container not found", "text/plain")
        if "follow" in request.query:
            return StreamResponse(200, follow, "text/plain")
        more.set()
        return Response(200, b"hello\n", "text/plain")

    async with trio.open_nursery() as nursery:
        files = w.server_tls("node-1")
        tls = TlsFiles(w.ca, files.cert_file, files.key_file)
        listener = await w.network.listen(Address("127.0.0.1", 0), tls)
        nursery.start_soon(serve_http, listener, handler)
        yield listener.address
        nursery.cancel_scope.cancel()


def _node(address: Address) -> Json:
    return {
        "metadata": {"name": "node-1"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address.host}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port}},
        },
    }  # fmt: skip


async def test_logs_come_from_the_kubelet(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        asked: list[str] = []
        async with kubelet(w, asked) as address:
            client = w.client()
            node = _node(address)
            await client.post(NODES, node)
            await client.patch(f"{NODES}/node-1/status", {"status": node["status"]})
            for name, container in (("p", "main"), ("q", "missing")):
                body = pod(name)
                body["spec"]["containers"][0]["name"] = container
                await client.post(PODS, body)
            assert (await client.get(f"{PODS}/p/log")).raw == b""  # no node runs it yet
            for name in ("p", "q"):
                await client.post(f"{PODS}/{name}/binding", {"target": {"name": "node-1"}})
            async with client.http.stream("GET", f"{PODS}/p/log?follow=true&tailLines=5") as stream:
                assert stream.headers["content-type"] == "text/plain"
                assert await anext(stream) == b"first\n"
                assert (await client.get(f"{PODS}/p/log?container=main")).raw == b"hello\n"
                assert [chunk async for chunk in stream] == [b"second\n"]
            assert asked[0] == (
                "kube-apiserver-kubelet-client /containerLogs/default/p/main?follow=true&tailLines=5"
            )
            missing = await client.get(f"{PODS}/q/log")
            assert (missing.code, missing.raw) == (404, b"container not found")
            assert (await client.get(f"{PODS}/p/log?container=other")).code == 400
            assert (await client.get(f"{PODS}/p/log?tailLines=-1")).code == 422
            assert "hello" in await w.kubectl("logs", "p")
        gone = await client.get(f"{PODS}/p/log")
        assert (gone.code, gone.reason) == (503, "ServiceUnavailable")
        assert "node-1" in gone.body["message"]
