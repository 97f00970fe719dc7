"""A real kubectl over the documents: discovery, explain, validation, create, apply, diff and patch.

The server here is a dictionary behind the pure parts (discovery, OpenAPI, codecs, patches); what it does
not have, kubectl must not need.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from raftkube.api import codecs
from raftkube.api.openapi import OpenApi
from raftkube.api.registry import find
from raftkube.api.status import ApiError, already_exists, not_found, path_not_found
from raftkube.apiserver.core.discovery import Discovery
from raftkube.apiserver.core.patches import apply_patch

KUBECTL = Path(sys.executable).with_name("kubectl")
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
DISCOVERY, OPEN_API = Discovery(), OpenApi()
Answer = tuple[int, bytes, str, dict[str, str]]


class Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, dict[str, Any]] = {}
        self.log: list[str] = []
        self.lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urlsplit(self.path)
        self.server.log.append(f"{self.command} {url.path} {self.headers.get('content-type')}")
        try:
            with self.server.lock:
                code, data, media, headers = self.respond(url.path, parse_qs(url.query), body)
        except ApiError as error:
            code, data, media, headers = error.code, json.dumps(error.status()).encode(), codecs.JSON, {}
        self.send_response(code)
        for name, text in {"Content-Type": media, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = answer

    def respond(self, path: str, query: dict[str, list[str]], body: bytes) -> Answer:
        document = DISCOVERY.respond(path, self.headers.get("accept"))
        if document is not None:
            return 200, document.body, document.content_type, {"ETag": document.etag}
        if path.startswith("/openapi/v3") and (openapi := OPEN_API.respond(path)):
            return 200, openapi.body, codecs.JSON, {"ETag": openapi.etag}
        return self.objects(path, query, body)

    def objects(self, path: str, query: dict[str, list[str]], body: bytes) -> Answer:
        parts = path.strip("/").split("/")
        group, version, *rest = parts[1:] if parts[0] == "apis" else ["", *parts[1:]]
        if rest[0] == "namespaces" and len(rest) > 2:
            rest = rest[2:]
        resource = find(group, version, rest[0])
        if resource is None:
            raise path_not_found()
        strictness = query.get("fieldValidation", [""])[0]
        warnings: list[str] = []
        if self.command == "POST":
            decoded = codecs.decode_object(
                body, self.headers.get("content-type"), api_version=resource.api_version, kind=resource.kind,
                schema=resource.schema,
            )  # fmt: skip
            warnings = codecs.enforce_strict(decoded, strictness)
            key = f"{path}/{decoded.obj['metadata']['name']}"
            if key in self.server.objects:
                raise already_exists(group, rest[0], key)
            obj = decoded.obj
        else:
            key = path
            if key not in self.server.objects:
                raise not_found(group, rest[0], rest[-1])
            obj = self.server.objects[key]
        if self.command == "PATCH":
            media, patch = codecs.patch_type(self.headers.get("content-type")), codecs.decode_patch(body)
            obj = apply_patch(obj, patch, media_type=media, schema=resource.schema)
            codecs.accept_patched(obj, patch, schema=resource.schema, field_validation=strictness)
        if "dryRun" not in query:
            self.server.objects[key] = obj
        quoted = [json.dumps(text) for text in warnings]
        headers = {"Warning": f"299 - {quoted[0]}"} if quoted else {}
        return 201 if self.command == "POST" else 200, codecs.encode(obj), codecs.JSON, headers


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def kubectl(server: Server, tmp_path: Path) -> Any:
    def run(*arguments: str, stdin: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [KUBECTL, "--kubeconfig=/dev/null", f"--cache-dir={tmp_path}",
             f"--server=http://127.0.0.1:{server.server_address[1]}", *arguments],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def deployment(image: str = "web:1", **extra: Any) -> str:
    labels = {"app": "web"}
    pod = {"containers": [{"name": "web", "image": image}, {"name": "side", "image": "side"}]}
    return json.dumps({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": pod}, **extra},
    })  # fmt: skip


def test_api_resources_and_versions(kubectl: Any) -> None:
    listed = kubectl("api-resources")
    for line in (r"pods", "deployments", "leases", "coordination.k8s.io/v1"):
        assert line in listed
    assert "apps/v1" in kubectl("api-versions")
    assert "Server Version: v1.37" in kubectl("version")


def test_explain(kubectl: Any) -> None:
    text = kubectl("explain", "deployment.spec.template.spec.containers.resources")
    assert "FIELD: resources <ResourceRequirements>" in text
    assert "limits\t<map[string]Quantity>" in text
    assert "VERSION:    v1" in kubectl("explain", "pod.spec.affinity")
    assert "FIELDS" in kubectl("explain", "lease", "--recursive")


def test_create_sends_protobuf_and_its_fields_arrive(server: Server, kubectl: Any) -> None:
    kubectl("create", "deployment", "web", "--image=web", "--replicas=3", "--", "sleep", "3600")
    kubectl("create", "secret", "generic", "s", "--from-literal=password=hunter2")
    assert (
        "POST /apis/apps/v1/namespaces/default/deployments application/vnd.kubernetes.protobuf" in server.log
    )
    stored = server.objects[f"{DEPLOYMENTS}/web"]
    assert stored["spec"]["replicas"] == 3
    assert stored["spec"]["template"]["spec"]["containers"][0]["command"] == ["sleep", "3600"]
    assert server.objects["/api/v1/namespaces/default/secrets/s"]["data"] == {"password": "aHVudGVyMg=="}


def test_validation(kubectl: Any) -> None:
    strict = kubectl("create", "-f", "-", stdin=deployment(replicsa=3), code=1)
    assert 'strict decoding error: unknown field "spec.replicsa"' in strict
    assert 'Warning: unknown field "spec.replicsa"' in kubectl(
        "create", "--validate=warn", "-f", "-", stdin=deployment(replicsa=3)
    )
    wrong = kubectl("create", "-f", "-", stdin=deployment(replicas="three"), code=1)
    assert (
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        in wrong
    )


def test_apply_twice_then_changed(server: Server, kubectl: Any) -> None:
    assert "created" in kubectl("apply", "-f", "-", stdin=deployment())
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=deployment())
    diff = kubectl("diff", "-f", "-", stdin=deployment("web:2"), code=1)
    assert "-      - image: web:1" in diff
    assert "+      - image: web:2" in diff
    assert "configured" in kubectl("apply", "-f", "-", stdin=deployment("web:2"))
    media = "application/strategic-merge-patch+json"
    assert server.log[-1] == f"PATCH {DEPLOYMENTS}/web {media}"
    stored = server.objects[f"{DEPLOYMENTS}/web"]
    images = [item["image"] for item in stored["spec"]["template"]["spec"]["containers"]]
    assert images == ["web:2", "side"]


def test_patches_and_labels(server: Server, kubectl: Any) -> None:
    kubectl("create", "configmap", "cm", "--from-literal=a=1")
    kubectl("label", "configmap", "cm", "x=y")
    kubectl("patch", "configmap", "cm", "--type=json", "-p", '[{"op":"add","path":"/data/b","value":"2"}]')
    kubectl("patch", "configmap", "cm", "--type=merge", "-p", '{"data":{"a":null}}')
    stored = server.objects["/api/v1/namespaces/default/configmaps/cm"]
    assert (stored["data"], stored["metadata"]["labels"]) == ({"b": "2"}, {"x": "y"})
    wrong = kubectl("patch", "configmap", "cm", "-p", '{"data":{"a":5}}', code=1)
    assert "cannot unmarshal number into Go struct field ConfigMap.data of type string" in wrong


def test_server_side_apply_is_refused_with_what_is_taken(kubectl: Any) -> None:
    kubectl("create", "configmap", "cm")
    manifest = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}})
    refused = kubectl("apply", "--server-side", "-f", "-", stdin=manifest, code=1)
    assert "application/strategic-merge-patch+json" in refused
