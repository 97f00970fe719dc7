# ruff: noqa: E501  (tables of values)
"""Thousands of requests that are almost right: none is answered with a 5xx, and the server lives."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from api_world import Answer, Client, config_map, pod, world
from test_object_semantics import deployment, service

from raftkube.api.registry import RESOURCES
from raftkube.api.resource import Resource

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**70, 1.5, -0.0, "", "a", "A_b", "x" * 300, "ü", "\x00", "-1",
    "5", "1e3", "10Gi", "..", "/", "%", "2026-01-01T00:00:00Z", "yesterday", [], [None], [1, "a"], ["a", "a"],
    [[]], [{}], {}, {"a": None}, {"a": {"b": []}}, {"": ""}, {"name": "a"}, {"kind": "X"},
]  # fmt: skip
BASES: list[dict[str, Any]] = [
    config_map("a", {"k": "v"}, labels={"x": "y"}, annotations={"n": "m"}),
    pod("p", ownerReferences=[{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]),
    deployment("d"),
    service("s", type="NodePort", selector={"a": "b"}),
    {"metadata": {"name": "n"}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
     "status": {"capacity": {"cpu": "4", "memory": "1Gi"}, "conditions": [{"type": "Ready", "status": "True"}]}},
    {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
     "lastTimestamp": "2026-01-01T00:00:00Z", "count": 3, "series": {"count": 2}},
    {"metadata": {"name": "l", "annotations": {"raftkube.dev/store-lease": "true"}},
     "spec": {"holderIdentity": "h", "leaseDurationSeconds": 30, "renewTime": "2026-01-01T00:00:00.000000Z"}},
    {"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "Yg=="}, "stringData": {"c": "d"}},
    {"metadata": {"name": "x", "finalizers": ["a/b"]}, "spec": {"finalizers": ["kubernetes"]}},
    {"metadata": {"name": "d"}, "spec": {"replicas": 3}, "target": {"name": "n"}, "deleteOptions": {}},
]  # fmt: skip
PATCHES = ("merge-patch+json", "strategic-merge-patch+json", "json-patch+json")
PARAMETERS = (
    "labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch",
    "dryRun", "fieldValidation", "gracePeriodSeconds", "propagationPolicy", "orphanDependents", "pretty",
    "container", "tailLines", "sinceTime", "includeObject",
)  # fmt: skip
TEXTS = (
    "", "0", "1", "-1", "a", "a=b", "a!=b,c in (d,e)", "metadata.name=a", "status.phase!=x", "All", "Strict",
    "Exact", "NotOlderThan", "Orphan", "true", "%00", "%zz", "é", "999999999999999999999", "((", "=", ",",
)  # fmt: skip
ACCEPTS = ("", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/yaml", "*/*")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a value."""
    found: list[tuple[Any, Any]] = []
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in entries:
        found += [(value, key), *places(item)]
    return found


class Gremlin:
    """Makes almost-right requests out of a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def mutated(self, count: int) -> Any:
        value = copy.deepcopy(self.rng.choice(BASES))
        for _ in range(count):
            container, key = self.rng.choice(places(value) or [({"": 0}, "")])
            container[key] = copy.deepcopy(self.rng.choice(VALUES))
        return value

    def body(self) -> bytes:
        value: Any = self.mutated(self.rng.choice((0, 1, 1, 2, 3)))
        data = json.dumps(value).encode()
        if self.rng.random() < 0.05:
            cut = self.rng.randrange(len(data))
            data = data[:cut] + bytes([self.rng.randrange(256)]) + data[cut + 1 :]
        return data

    def json_patch(self) -> bytes:
        paths = (
            "",
            "/metadata",
            "/metadata/name",
            "/spec",
            "/data/a",
            "/spec/containers/0",
            "/x/-",
            "a",
            "/~2",
        )
        operations = [
            {"op": self.rng.choice(("add", "remove", "replace", "test", "move", "copy", "?")),
             "path": self.rng.choice(paths), "from": self.rng.choice(paths),
             "value": self.rng.choice(VALUES)}
            for _ in range(self.rng.randrange(1, 4))
        ]  # fmt: skip
        return json.dumps(operations).encode()

    def target(self, resource: Resource, name: str) -> str:
        prefix = (
            f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        )
        scope = "/namespaces/default" if resource.namespaced else ""
        path = f"{prefix}{scope}/{resource.plural}"
        if name:
            subs = ["", "", ""] + [f"/{sub.name}" for sub in resource.subresources]
            path += f"/{name}{self.rng.choice(subs)}"
        names = self.rng.sample(PARAMETERS, self.rng.choice((0, 0, 1, 2)))
        query = "&".join(f"{n}={self.rng.choice(TEXTS).replace(' ', '+')}" for n in names)
        return path + (f"?{query}" if query else "")

    async def ask(self, client: Client) -> tuple[str, Answer]:
        resource = self.rng.choice(RESOURCES)
        method = self.rng.choice(("GET", "POST", "POST", "PUT", "PUT", "PATCH", "PATCH", "DELETE"))
        name = "" if method == "POST" and self.rng.random() < 0.7 else self.rng.choice("apdsnelx")
        target, body, kind = self.target(resource, name), b"", ""
        if method in ("POST", "PUT"):
            body = self.body()
        elif method == "PATCH":
            form = self.rng.choice(PATCHES)
            kind = f"application/{form}"
            body = self.json_patch() if form == "json-patch+json" else self.body()
        elif method == "DELETE" and self.rng.random() < 0.3:
            body = self.body()
        answer = await client.request(
            method, ascii_only(target), body, content_type=kind, Accept=self.rng.choice(ACCEPTS)
        )
        return f"{method} {target} {kind} {body!r}", answer


def ascii_only(target: str) -> str:
    return target.encode("utf-8").decode("latin-1")


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 118, 139])  # the last two found faults
async def test_almost_right_requests(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    gremlin, codes = Gremlin(seed), dict[int, int]()
    async with world(tmp_path) as w:
        client = w.client()
        for _ in range(800):
            shown, answer = await gremlin.ask(client)
            codes[answer.code] = codes.get(answer.code, 0) + 1
            assert answer.code < 500, f"{shown}\n{answer.raw!r}"
            assert answer.raw or answer.code == 200, shown
        for resource in RESOURCES:
            path = f"/apis/{resource.group}" if resource.group else "/api"
            for accept in ACCEPTS:
                listed = await client.get(f"{path}/{resource.version}/{resource.plural}", Accept=accept)
                assert listed.code == 200, (resource.plural, listed.raw)
    assert codes.get(201, 0) > 10
    assert codes.get(200, 0) > 10
    assert codes.get(422, 0) > 10
