# ruff: noqa: E501  (a table of requests)
"""Wrong requests: the right code, a Status with upstream's reason, and never a 5xx."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from api_world import World, config_map, pod, world

from raftkube.apiserver.core.continuation import Continuation, encode
from raftkube.apiserver.router import REQUEST_TIMEOUT_S

CM = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
JSON = "application/json"


def token(**fields: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(fields)).decode()


# name → (method, target, body, content type, code, reason, a part of the message)
CASES: dict[str, tuple[str, str, bytes, str, int, str, str]] = {
    "no such path": ("GET", "/nowhere", b"", "", 404, "NotFound", "could not find the requested resource"),
    "no such resource": ("GET", "/api/v1/gadgets", b"", "", 404, "NotFound", "could not find"),
    "no such group": ("GET", "/apis/gadgets.io/v1/things", b"", "", 404, "NotFound", "could not find"),
    "no such version": ("GET", "/apis/apps/v7/deployments", b"", "", 404, "NotFound", "could not find"),
    "no such subresource": ("GET", f"{PODS}/a/nothing", b"", "", 404, "NotFound", "could not find"),
    "too deep": ("GET", f"{PODS}/a/log/b", b"", "", 404, "NotFound", "could not find"),
    "an empty segment": ("GET", "/api/v1//pods", b"", "", 404, "NotFound", "could not find"),
    "a cluster-scoped one in a namespace": (
        "GET", "/api/v1/namespaces/default/nodes/a", b"", "", 404, "NotFound", "could not find"),
    "a namespaced one without": ("GET", "/api/v1/pods/a", b"", "", 404, "NotFound", "could not find"),
    "create without namespace": (
        "POST", "/api/v1/configmaps", b"{}", JSON, 404, "NotFound", "could not find"),
    "a name with an encoded slash": (
        "GET", f"{CM}/a%2fb", b"", "", 400, "BadRequest", "may not contain '/'"),
    "dots as a name": ("GET", f"{CM}/..", b"", "", 400, "BadRequest", "may not be '..'"),
    "encoded dots as a name": ("GET", f"{CM}/%2e%2e", b"", "", 400, "BadRequest", "may not be '..'"),
    "a percent sign in a name": ("GET", f"{CM}/a%25b", b"", "", 400, "BadRequest", "may not contain '%'"),
    "a NUL in a name": ("GET", f"{CM}/a%00b", b"", "", 400, "BadRequest", "NUL"),
    "a path that is not UTF-8": ("GET", f"{CM}/%ff%fe", b"", "", 400, "BadRequest", "not UTF-8"),
    "a very long name": ("GET", f"{CM}/{'a' * 40_000}", b"", "", 413, "RequestEntityTooLarge", "too large"),
    "an odd name": ("GET", f"{CM}/a%20%5C%22%C3%A9", b"", "", 404, "NotFound", "not found"),
    "an unknown method": ("OPTIONS", CM, b"", "", 405, "MethodNotAllowed", "OPTIONS"),
    "PUT of a collection": ("PUT", CM, b"{}", JSON, 405, "MethodNotAllowed", "update is not supported"),
    "POST to an object": ("POST", f"{CM}/a", b"{}", JSON, 405, "MethodNotAllowed", "create is not supported"),
    "DELETE of all namespaces": (
        "DELETE", "/api/v1/namespaces", b"", "", 405, "MethodNotAllowed", "deletecollection is not"),
    "PATCH of a log": ("PATCH", f"{PODS}/a/log", b"{}", JSON, 405, "MethodNotAllowed", "patch is not"),
    "POST to health": ("POST", "/healthz", b"{}", JSON, 404, "NotFound", "could not find"),
    "malformed JSON": ("POST", CM, b'{"metadata": {', JSON, 400, "BadRequest", "json parse error"),
    "an array": ("POST", CM, b"[]", JSON, 400, "BadRequest", "cannot unmarshal array"),
    "a string": ("POST", CM, b'"x"', JSON, 400, "BadRequest", "cannot unmarshal string"),
    "null": ("POST", CM, b"null", JSON, 400, "BadRequest", "cannot unmarshal null"),
    "nothing": ("POST", CM, b"", JSON, 400, "BadRequest", "json parse error"),
    "not UTF-8": ("POST", CM, b'{"metadata": {"name": "\xff"}}', JSON, 400, "BadRequest", "json parse error"),
    "deeply nested": ("POST", CM, b'{"data":' * 5000 + b"1" + b"}" * 5000, JSON, 400, "BadRequest", ""),
    "malformed YAML": ("POST", CM, b"a: [", "application/yaml", 400, "BadRequest", "yaml parse error"),
    "malformed protobuf": (
        "POST", CM, b"k8s\x00\xff\xff", "application/vnd.kubernetes.protobuf", 400, "BadRequest", "protobuf"),
    "an unknown content type": (
        "POST", CM, b"<a/>", "application/xml", 415, "UnsupportedMediaType", "unknown format"),
    "another kind": ("POST", CM, b'{"kind": "Pod", "apiVersion": "v1"}', JSON, 400, "BadRequest", "Pod"),
    "another apiVersion": (
        "POST", CM, b'{"kind":"ConfigMap","apiVersion":"apps/v1"}', JSON, 400, "BadRequest", "does not match"),
    "a kind that is a number": ("POST", CM, b'{"kind": 7}', JSON, 400, "BadRequest", "kind is no string"),
    "metadata that is a string": (
        "POST", CM, b'{"metadata": "x"}', JSON, 400, "BadRequest", "cannot unmarshal"),
    "labels that are numbers": (
        "POST", CM, b'{"metadata":{"name":"a","labels":{"a":1}}}', JSON, 400, "BadRequest", "unmarshal number"),
    "no name": ("POST", CM, b"{}", JSON, 422, "Invalid", "name or generateName is required"),
    "a bad name": ("POST", CM, b'{"metadata":{"name":"A_b"}}', JSON, 422, "Invalid", "RFC 1123 subdomain"),
    "a bad label": (
        "POST", CM, b'{"metadata":{"name":"a","labels":{"a":"-"}}}', JSON, 422, "Invalid", "metadata.labels"),
    "another namespace": (
        "POST", CM, b'{"metadata":{"name":"a","namespace":"b"}}', JSON, 400, "BadRequest", "does not match"),
    "a resourceVersion on create": (
        "POST", CM, b'{"metadata":{"name":"a","resourceVersion":"5"}}', JSON, 400, "BadRequest", "resourceVersion"),
    "a pod without containers": (
        "POST", PODS, b'{"metadata":{"name":"a"},"spec":{}}', JSON, 422, "Invalid", "spec.containers"),
    "a missing namespace": (
        "POST", "/api/v1/namespaces/gone/configmaps", b'{"metadata":{"name":"a"}}', JSON, 404, "NotFound",
        'namespaces "gone" not found'),
    "an unknown field, strictly": (
        "POST", f"{CM}?fieldValidation=Strict", b'{"metadata":{"name":"a"},"colour":1}', JSON, 400,
        "BadRequest", 'unknown field "colour"'),
    "a bad fieldValidation": (
        "POST", f"{CM}?fieldValidation=Harsh", b"{}", JSON, 422, "Invalid", "fieldValidation"),
    "a bad dryRun": ("POST", f"{CM}?dryRun=Some", b"{}", JSON, 422, "Invalid", "dryRun"),
    "an update of another name": (
        "PUT", f"{CM}/there", b'{"metadata":{"name":"other"}}', JSON, 400, "BadRequest", "does not match the name"),
    "an update of what is not there": (
        "PUT", f"{CM}/missing", b'{"metadata":{"name":"missing"}}', JSON, 404, "NotFound", "not found"),
    "a stale update": (
        "PUT", f"{CM}/there", b'{"metadata":{"name":"there","resourceVersion":"1"}}', JSON, 409, "Conflict",
        "the object has been modified"),
    "an update with another uid": (
        "PUT", f"{CM}/there", b'{"metadata":{"name":"there","uid":"x"}}', JSON, 409, "Conflict",
        "UID in precondition: x"),
    "a patch without content type": ("PATCH", f"{CM}/there", b"{}", "", 415, "UnsupportedMediaType", "patch"),
    "server-side apply": (
        "PATCH", f"{CM}/there", b"{}", "application/apply-patch+yaml", 415, "UnsupportedMediaType", ""),
    "a malformed patch": (
        "PATCH", f"{CM}/there", b"{", "application/merge-patch+json", 400, "BadRequest", "error decoding patch"),
    "a JSON patch that is an object": (
        "PATCH", f"{CM}/there", b"{}", "application/json-patch+json", 400, "BadRequest", ""),
    "a JSON patch of a missing path": (
        "PATCH", f"{CM}/there", b'[{"op":"remove","path":"/data/none"}]', "application/json-patch+json", 422,
        "Invalid", ""),
    "a patch into nonsense": (
        "PATCH", f"{CM}/there", b'{"data": 5}', "application/merge-patch+json", 422, "Invalid", "unmarshal"),
    "a patch of metadata into nonsense": (
        "PATCH", f"{CM}/there", b'{"metadata": 5}', "application/merge-patch+json", 422, "Invalid", ""),
    "a patch of the whole into a number": (
        "PATCH", f"{CM}/there", b'[{"op":"replace","path":"","value":5}]', "application/json-patch+json", 422,
        "Invalid", "no object"),
    "a patch of the name": (
        "PATCH", f"{CM}/there", b'{"metadata":{"name":"b"}}', "application/merge-patch+json", 400,
        "BadRequest", "does not match the name"),
    "a patch with a stale version": (
        "PATCH", f"{CM}/there", b'{"metadata":{"resourceVersion":"1"}}', "application/merge-patch+json", 409,
        "Conflict", "modified"),
    "a bad label selector": (
        "GET", f"{CM}?labelSelector=a%3D%3D%3Db", b"", "", 400, "BadRequest", "unable to parse"),
    "a bad field selector": ("GET", f"{CM}?fieldSelector=a", b"", "", 400, "BadRequest", "field selector"),
    "an unsupported field selector": (
        "GET", f"{CM}?fieldSelector=spec.x%3Dy", b"", "", 400, "BadRequest", "field label not supported"),
    "a bad limit": ("GET", f"{CM}?limit=many", b"", "", 400, "BadRequest", "limit"),
    "a huge limit": ("GET", f"{CM}?limit=99999999999999999999", b"", "", 400, "BadRequest", "limit"),
    "a bad timeout": (
        "GET", f"{CM}?watch=1&timeoutSeconds=soon", b"", "", 400, "BadRequest", "timeoutSeconds"),
    "a bad resourceVersion": ("GET", f"{CM}?resourceVersion=new", b"", "", 400, "BadRequest", "decimal"),
    "a negative resourceVersion": ("GET", f"{CM}?resourceVersion=-1", b"", "", 400, "BadRequest", "decimal"),
    "a match without version": (
        "GET", f"{CM}?resourceVersionMatch=Exact", b"", "", 422, "Invalid", "resourceVersionMatch"),
    "an unknown match": (
        "GET", f"{CM}?resourceVersion=3&resourceVersionMatch=About", b"", "", 422, "Invalid", "Unsupported"),
    "an exact zero": (
        "GET", f"{CM}?resourceVersion=0&resourceVersionMatch=Exact", b"", "", 422, "Invalid", "Exact"),
    "initial events for a list": (
        "GET", f"{CM}?sendInitialEvents=true", b"", "", 422, "Invalid", "forbidden for list"),
    "initial events without match": (
        "GET", f"{CM}?watch=1&sendInitialEvents=true", b"", "", 422, "Invalid", "NotOlderThan"),
    "a forged continue": ("GET", f"{CM}?limit=1&continue=abc", b"", "", 400, "BadRequest", "continue key"),
    "a continue of another place": (
        "GET", f"{CM}?limit=1&continue={token(v='raftkube/v1', rv=3, start='/registry/core/secrets/')}", b"", "",
        400, "BadRequest", "continue key"),
    "a continue of another type": (
        "GET", f"{CM}?limit=1&continue={token(v='raftkube/v1', rv='3', start=1)}", b"", "", 400, "BadRequest",
        "continue key"),
    "too many parameters": (
        "GET", f"{CM}?" + "&".join(f"a{i}=1" for i in range(200)), b"", "", 400, "BadRequest", "query"),
    "bad delete options": ("DELETE", f"{CM}/there", b'{"gracePeriodSeconds":"x"}', JSON, 400, "BadRequest", ""),
    "a bad propagation": (
        "DELETE", f"{CM}/there", b'{"propagationPolicy":"Sideways"}', JSON, 422, "Invalid", "propagationPolicy"),
    "a failed precondition": (
        "DELETE", f"{CM}/there", b'{"preconditions":{"uid":"x"}}', JSON, 409, "Conflict", "Precondition failed"),
    "a delete of what is not there": ("DELETE", f"{CM}/missing", b"", "", 404, "NotFound", "not found"),
    "the last namespace": (
        "DELETE", "/api/v1/namespaces/kube-system", b"", "", 403, "Forbidden", "may not be deleted"),
    "a negative scale": (
        "PUT", "/apis/apps/v1/namespaces/default/deployments/x/scale", b'{"spec":{"replicas":-1}}', JSON, 404,
        "NotFound", "not found"),
    "a binding without target": (
        "POST", f"{PODS}/a/binding", b'{"target":{}}', JSON, 422, "Invalid", "target.name"),
    "a log of no pod": ("GET", f"{PODS}/a/log", b"", "", 404, "NotFound", "not found"),
    "a fixed address of another range": (
        "POST", "/api/v1/namespaces/default/services",
        b'{"metadata":{"name":"s"},"spec":{"clusterIP":"9.9.9.9","ports":[{"port":1}]}}', JSON, 422, "Invalid",
        "not in the valid range"),
    "an address that is taken": (
        "POST", "/api/v1/namespaces/default/services",
        b'{"metadata":{"name":"s"},"spec":{"clusterIP":"10.96.0.1","ports":[{"port":1}]}}', JSON, 422, "Invalid",
        "already allocated"),
}  # fmt: skip


async def _ask(w: World, case: tuple[str, str, bytes, str, int, str, str]) -> str:
    """What is wrong with the answer; "" if nothing."""
    method, target, body, content_type, code, reason, part = case
    answer = await w.client().request(method, target, body, content_type=content_type)
    status = answer.body or {}
    if answer.code >= 500:
        return f"a 5xx: {answer.code} {answer.raw!r}"
    if (answer.code, answer.reason) != (code, reason) or part not in status.get("message", ""):
        return f"wanted {code} {reason} {part!r}; got {answer.code} {answer.raw!r}"
    if (status["kind"], status["code"], status["status"]) != ("Status", code, "Failure"):
        return f"no good Status: {answer.raw!r}"
    return ""


async def test_bad_requests(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert (await w.client().post(CM, config_map("there"))).code == 201
        wrong = {name: why for name, case in CASES.items() if (why := await _ask(w, case))}
        assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())
        assert (await w.client().get(f"{CM}/there")).code == 200


async def test_a_body_beyond_the_limit(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        big = orjson.dumps(config_map("big", {"k": "x" * 4_000_000}))
        answer = await w.client().request("POST", CM, big, content_type=JSON)
        assert (answer.code, answer.reason) == (413, "RequestEntityTooLarge")
        # Within the body limit, beyond the store's.
        large = orjson.dumps(config_map("big", {"k": "x" * 900_000, "l": "x" * 900_000}))
        answer = await w.client().request("POST", CM, large, content_type=JSON)
        assert answer.code in (413, 422)


async def test_a_future_version_is_a_timeout_that_says_when_to_come_again(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        for query in ("resourceVersion=999999", "resourceVersion=999999&resourceVersionMatch=Exact"):
            answer = await w.client().get(f"{CM}?{query}")
            assert (answer.code, answer.reason) == (504, "Timeout")
            assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
            assert answer.body["details"]["retryAfterSeconds"] == 1
            assert answer.headers["retry-after"] == "1"


async def test_a_compacted_continue_offers_an_inconsistent_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        for name in "abcd":
            await client.post(CM, config_map(name))
        first = await client.get(f"{CM}?limit=2")
        token_ = first.body["metadata"]["continue"]
        assert [item["metadata"]["name"] for item in first.body["items"]] == ["a", "b"]
        assert first.body["metadata"]["remainingItemCount"] == 2
        await client.delete(f"{CM}/c")
        second = await client.get(f"{CM}?limit=2&continue={token_}")
        assert [item["metadata"]["name"] for item in second.body["items"]] == ["c", "d"]
        assert second.body["metadata"]["resourceVersion"] == first.body["metadata"]["resourceVersion"]
        await w.storage.compact(await w.storage.current_revision())  # type: ignore[attr-defined]
        expired = await client.get(f"{CM}?limit=2&continue={token_}")
        assert (expired.code, expired.reason) == (410, "Expired")
        again = await client.get(f"{CM}?limit=2&continue={expired.body['metadata']['continue']}")
        assert [item["metadata"]["name"] for item in again.body["items"]] == ["d"]


def test_a_token_never_leaves_its_list() -> None:
    with pytest.raises(AssertionError):
        encode(Continuation(3, b"/registry/core/secrets/a"), "/registry/core/configmaps/")


async def test_a_request_that_takes_too_long_is_a_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftkube.apiserver.router.REQUEST_TIMEOUT_S", 0.2)
    assert REQUEST_TIMEOUT_S >= 10
    async with world(tmp_path) as w:

        async def never(*_: object) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(w.storage, "range", never)
        answer = await w.client().get(f"{CM}/x")
        assert (answer.code, answer.reason) == (504, "Timeout")


async def test_pods_are_checked_like_upstream(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        body = pod("p")
        body["spec"]["containers"].append({"name": "main", "image": "x"})
        answer = await w.client().post(PODS, body)
        assert answer.code == 422
        assert answer.body["details"]["causes"][0]["reason"] == "FieldValueDuplicate"
