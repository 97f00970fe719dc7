"""What one client of `api-rates` asks, and what it must be answered: no sockets, no clock.

A client owns `PODS` pods in a namespace of its own, and whatever it creates in a second one; nobody else
touches them, so that it knows what every answer must say. A script yields a request and is sent the answer;
it raises Violation where the answer is not what must be.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any, Final, NamedTuple

import orjson

from bench import api_pods
from bench.api_http import get, patch, request
from bench.api_pods import MARK
from bench.errors import Violation

PODS: Final = 10
# Of so many gets and lists one client changes a pod once, so that there is something to find.
READS_A_WRITE: Final = 100
_PAGE: Final = 500


class Ask(NamedTuple):
    """A request. counted: it is what is measured; elsewhere: send it to another API server than most."""

    data: bytes
    counted: bool = True
    elsewhere: bool = False


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes


Script = Generator[Ask, Answer, None]


class Owner:
    """One client and what it knows: its pods as they were last acknowledged, and the newest revision seen."""

    def __init__(self, number: int, *, padding: int, seed: int) -> None:
        self._home, self._made_in = f"rates-{number:04d}", f"rates-{number:04d}-made"
        self._padding = padding
        self._rng = random.Random(f"{seed}/rates/{number}")
        self._writes = 0
        self._created = 0
        self.pods: dict[str, dict[str, Any]] = {}
        self.made: dict[str, int] = {}  # revisions of what was created and not deleted
        self.revision = 0
        self.verified = 0

    def script(self, verb: str) -> Script:
        """Of what is measured; endless but for `delete`, which ends when nothing is left."""
        scripts = {
            "get": self._get, "list": self._list, "create": self._create, "update": self._update,
            "patch": self._patch, "delete": self._delete,
        }  # fmt: skip
        return scripts[verb]()

    def prepare(self) -> Script:
        """Make the namespaces and the pods."""
        for name in (self._home, self._made_in):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self._object((yield _post("/api/v1/namespaces", namespace)), 201, "a namespace")
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            path = f"/api/v1/namespaces/{name}/serviceaccounts"
            self._object((yield _post(path, account)), 201, "a service account")
        for number in range(PODS):
            name = f"pod-{number:06d}"
            wanted = self._pod(self._home, name)
            answer = yield _post(_path(self._home), wanted)
            self._written(answer, 201, name, self.pods, mark=_mark(wanted))

    def check(self) -> Script:
        """List both namespaces: each acknowledged pod once, as it was acknowledged, and no other.

        It is asked at another API server where there is one.
        """
        found: dict[str, dict[str, Any]] = {}
        for namespace in (self._home, self._made_in):
            token = ""
            while True:
                page = f"?limit={_PAGE}" + (f"&continue={token}" if token else "")
                answer = yield Ask(get(_path(namespace) + page), elsewhere=True)
                listed = self._object(answer, 200, f"a list of {namespace}")
                for item in listed["items"]:
                    self._found_once(item, namespace, found)
                token = listed["metadata"].get("continue", "")
                if not token:
                    break
        expected = {name: _revision(pod) for name, pod in self.pods.items()} | self.made
        if lost := sorted(expected.keys() - found.keys()):
            raise Violation(f"{len(lost)} acknowledged pods are not listed, {lost[0]} first")
        if foreign := sorted(found.keys() - expected.keys()):
            raise Violation(f"{len(foreign)} pods are listed that were deleted or never made: {foreign[0]}")
        for name, revision in expected.items():
            self._same(found[name], name, revision, self.pods.get(name))

    def _get(self) -> Script:
        while True:
            for name in self._shuffled():
                answer = yield Ask(get(_path(self._home, name)))
                got = self._object(answer, 200, f"a get of {name}")
                self._same(got, name, _revision(self.pods[name]), self.pods[name])
                if self._now_and_then():
                    yield from self._patch_one(name, counted=False)

    def _list(self) -> Script:
        while True:
            before = self.revision
            listed = self._object((yield Ask(get(_path(self._home)))), 200, "a list")
            revision = _revision(listed)
            if revision < before:
                raise Violation(f"a list of revision {revision} was asked for after {before} was seen")
            names = [item["metadata"]["name"] for item in listed["items"]]
            if names != sorted(self.pods):
                raise Violation(f"a list held {names}, not the {len(self.pods)} pods that there are")
            for item in listed["items"]:
                name = item["metadata"]["name"]
                self._same(item, name, _revision(self.pods[name]), self.pods[name])
            self.revision = revision
            if self._now_and_then():
                yield from self._patch_one(self._rng.choice(names), counted=False)

    def _create(self) -> Script:
        while True:
            name, made = f"new-{self._created:06d}", dict[str, dict[str, Any]]()
            self._created += 1  # even if it is never sent: a name is used once
            wanted = self._pod(self._made_in, name)
            answer = yield _post(_path(self._made_in), wanted)
            self.made[name] = self._written(answer, 201, name, made, mark=_mark(wanted))

    def _update(self) -> Script:
        while True:
            for name in self._shuffled():
                pod = self.pods[name]
                wanted = {**pod, "metadata": {**pod["metadata"], "annotations": self._annotations()}}
                data = request("PUT", _path(self._home, name), orjson.dumps(wanted))
                self._written((yield Ask(data)), 200, name, self.pods, mark=_mark(wanted))

    def _patch(self) -> Script:
        while True:
            for name in self._shuffled():
                yield from self._patch_one(name, counted=True)

    def _patch_one(self, name: str, *, counted: bool) -> Script:
        body = {"metadata": {"annotations": {MARK: self._next_mark()}}}
        data = patch(_path(self._home, name), orjson.dumps(body))
        answer = yield Ask(data, counted=counted, elsewhere=not counted)
        self._written(answer, 200, name, self.pods, mark=_mark(body))

    def _delete(self) -> Script:
        for name in list(self.made):
            answer = yield Ask(request("DELETE", _path(self._made_in, name)))
            self._same(self._object(answer, 200, f"a delete of {name}"), name)
            del self.made[name]

    def _written(
        self, answer: Answer, status: int, name: str, into: dict[str, dict[str, Any]], *, mark: str
    ) -> int:
        """Check the answer to a write of `name`, and keep the object that it holds; its revision."""
        pod = self._object(answer, status, f"a write of {name}")
        self._same(pod, name)
        revision = _revision(pod)
        if _mark(pod) != mark:
            raise Violation(f"a write of {name} left {_mark(pod)!r}, not {mark!r}")
        if revision <= self.revision:
            raise Violation(f"a write of {name} is at revision {revision}, {self.revision} was seen before")
        self.revision = revision
        into[name] = pod
        return revision

    def _object(self, answer: Answer, status: int, what: str) -> dict[str, Any]:
        if answer.status != status:
            raise Violation(f"{what} was answered {answer.status}: {answer.body[:200].decode()}")
        found: dict[str, Any] = orjson.loads(answer.body)
        return found

    def _same(
        self, found: dict[str, Any], name: str, revision: int = 0, as_written: dict[str, Any] | None = None
    ) -> None:
        """The pod of that name; at `revision` and with the same mark as `as_written` if they are given."""
        if found["metadata"]["name"] != name:
            raise Violation(f"{found['metadata']['name']} was answered for {name}")
        if revision and _revision(found) != revision:
            raise Violation(f"{name} is at revision {_revision(found)}, not at {revision} as acknowledged")
        if as_written is not None and _mark(found) != _mark(as_written):
            raise Violation(f"{name} holds {_mark(found)!r}, not {_mark(as_written)!r}")
        self.verified += 1

    def _found_once(self, item: dict[str, Any], namespace: str, found: dict[str, dict[str, Any]]) -> None:
        name = item["metadata"]["name"]
        if name in found:
            raise Violation(f"{name} is listed twice")
        if item["metadata"]["namespace"] != namespace:
            raise Violation(f"{name} of {item['metadata']['namespace']} is in a list of {namespace}")
        found[name] = item

    def _pod(self, namespace: str, name: str) -> dict[str, Any]:
        wanted = rate_pod(namespace, name, padding=self._padding)
        wanted["metadata"]["annotations"][MARK] = self._next_mark()
        return wanted

    def _annotations(self) -> dict[str, str]:
        return {MARK: self._next_mark(), api_pods.PADDING: "x" * self._padding}

    def _next_mark(self) -> str:
        self._writes += 1
        return api_pods.mark(self._writes, 0)

    def _shuffled(self) -> list[str]:
        names = list(self.pods)
        self._rng.shuffle(names)
        return names

    def _now_and_then(self) -> bool:
        return self._rng.randrange(READS_A_WRITE) == 0


def rate_pod(namespace: str, name: str, *, padding: int) -> dict[str, Any]:
    """A pod that no node runs, so that it is deleted at once."""
    wanted = api_pods.pod(0, padding=padding)
    wanted["metadata"] |= {"namespace": namespace, "name": name}
    del wanted["spec"]["nodeName"]
    return wanted


def replay(data: bytes, body: bytes) -> Script:
    """For a bare loop: the same request for ever, answered with `body`, which is parsed as ours is."""
    while True:
        answer = yield Ask(data)
        if answer.status != 200 or answer.body != body:
            raise Violation("the bare loop answered something else than was recorded")
        orjson.loads(answer.body)


def _post(path: str, body: Any) -> Ask:
    return Ask(request("POST", path, orjson.dumps(body)))


def _path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/pods" + (f"/{name}" if name else "")


def _revision(found: dict[str, Any]) -> int:
    return int(found["metadata"]["resourceVersion"])


def _mark(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["annotations"][MARK])
