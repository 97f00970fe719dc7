"""Writes through the API: whose, with which fencing token and preconditions, and what became of them."""

from __future__ import annotations

from typing import Any, Final

from chaos.checkers.history import History
from chaos.checkers.objects import resource_of
from chaos.checkers.verdict import Verdict

Json = dict[str, Any]

# Who is fenced by which Lease, and who else deletes by itself.
_LEASES_PREFIX: Final = "/registry/coordination.k8s.io/leases/kube-system/"
_LEASE_OF: Final = {
    f"system:{name}": _LEASES_PREFIX + name for name in ("kube-scheduler", "kube-controller-manager")
}
_NODE_USER: Final = "system:node:"
_NAMED: Final = {"api": 4, "apis": 5}  # segments of a path up to a cluster-scoped object's name


class _Log:
    """When each key changed, and which Lease stood when."""

    def __init__(self, history: History) -> None:
        self.revision_after: dict[tuple[str, int], int] = {}  # (key, its revision before) -> of the change
        self.touched: dict[int, set[str]] = {}
        self._lease: dict[str, list[tuple[int, int]]] = {}  # (revision, its create revision then, or 0)
        modified: dict[str, int] = {}
        watch = history.log_watch
        for event in () if watch is None else watch.events:
            if event["kind"] in ("put", "delete"):
                self._take(event["key"], event["revision"], event["kind"] == "put", modified)

    def _take(self, key: str, revision: int, put: bool, modified: dict[str, int]) -> None:
        before = modified.get(key, 0)
        self.revision_after[key, before] = revision
        self.touched.setdefault(revision, set()).add(key)
        if key in _LEASE_OF.values():
            if not put:
                self._lease.setdefault(key, []).append((revision, 0))
            elif not before:
                self._lease.setdefault(key, []).append((revision, revision))
        if put:
            modified[key] = revision
        else:
            modified.pop(key, None)

    def token_before(self, lease: str, revision: int) -> int:
        """The create revision that the Lease had when the transaction of `revision` was applied; 0: none."""
        token = 0
        for at, created in self._lease.get(lease, ()):
            if at >= revision:
                break
            token = created
        return token


def check_fencing(history: History, verdict: Verdict) -> None:
    """L3. A write whose answer is unknown is found in the log by the revision that it compared with; where
    several could have made a change, one that was allowed is enough."""
    log = _Log(history)
    requests = {op["id"]: op for op in history.operations if op["kind"] == "api"}
    certain: set[int] = set()
    doubtful: dict[int, list[tuple[Json, Json]]] = {}
    for write in history.operations:
        if write["kind"] != "write" or write["outcome"] == "fail":
            continue
        asked = requests.get(write["request"]["api"])
        if write["outcome"] == "ok":
            certain.add(write["revision"])
        revision = write["revision"] if write["outcome"] == "ok" else _found(write, log)
        if revision is None or asked is None:
            continue
        if write["outcome"] == "ok":
            verdict.count("fenced writes", asked["request"]["user"] in _LEASE_OF)
            _judge(log, revision, [(write, asked)], verdict)
        else:
            doubtful.setdefault(revision, []).append((write, asked))
    for revision, candidates in doubtful.items():
        if revision not in certain:
            _judge(log, revision, candidates, verdict)


def check_tokens(history: History, verdict: Verdict) -> None:
    """L6. Whoever asks with a token holds himself for the leader that the token was given to."""
    process_of: dict[tuple[str, str], Json] = {}
    for op in history.operations:
        request = op["request"]
        if op["kind"] != "api" or not request.get("process"):
            continue
        first = process_of.setdefault((request["user"], request["token"]), op)
        if first["request"]["process"] != request["process"]:
            both = f"{first['request']['process']} and {request['process']}"
            verdict.add("L6", f"{both} both act under the token {request['token']}", first, op)


def _found(write: Json, log: _Log) -> int | None:
    """The revision of a write whose answer is missing, if its key changed from what it was compared with."""
    compared = {key: operand for key, target, operand in write["request"]["compares"] if target == "mod"}
    for key in (*write["request"]["puts"], *write["request"]["deletes"]):
        if key in compared:
            return log.revision_after.get((key, compared[key]))
    return None


def _judge(log: _Log, revision: int, candidates: list[tuple[Json, Json]], verdict: Verdict) -> None:
    if revision not in log.touched:
        return  # it changed nothing
    why = [_stale(log, revision, write, asked) for write, asked in candidates]
    if all(why):
        write, asked = candidates[0]
        verdict.add("L3", f"revision {revision}: {why[0]}", asked, write)


def _stale(log: _Log, revision: int, write: Json, asked: Json) -> str:
    """Why this writer may not have written then; "" if it may."""
    request = asked["request"]
    lease = _LEASE_OF.get(request["user"])
    if lease is None or lease in write["request"]["puts"] or lease in write["request"]["deletes"]:
        return ""
    token, current = request.get("token", "none"), log.token_before(lease, revision)
    if token == str(current):
        return ""
    what = f"{request['method']} {request['path']} by {request['user']} took effect with the token {token}"
    return f"{what}; the Lease had {current or 'ended'}"


def check_preconditions(history: History, verdict: Verdict) -> None:
    """C6. A kubelet's final delete needs only the uid: the pod has ended, nothing that can change matters."""
    for op in history.operations:
        if op["kind"] != "api" or op["request"]["method"] != "DELETE":
            continue
        request = op["request"]
        user, given = request["user"], request["preconditions"]
        needed = ("uid",) if user.startswith(_NODE_USER) else ("uid", "resourceVersion")
        if not (user in _LEASE_OF or user.startswith(_NODE_USER)) or not _names_one(request["path"]):
            continue
        verdict.count("deletes by control loops")
        if missing := [name for name in needed if not given.get(name)]:
            verdict.add("C6", f"{user} deleted {request['path']} without {' and '.join(missing)}", op)


def _names_one(path: str) -> bool:
    """Whether a path names one object, and not a collection."""
    parts = path.strip("/").split("/")
    length = _NAMED.get(parts[0], 0)
    namespaced = "namespaces" in parts and len(parts) > length
    return len(parts) == length + 2 if namespaced else len(parts) == length


def check_user_writes(history: History, verdict: Verdict) -> None:
    """A1."""
    log = _Log(history)
    for op in history.operations:
        answer = op.get("response") or {}
        if op["kind"] != "user" or op["outcome"] != "ok" or not answer.get("resourceVersion"):
            continue
        verdict.count("acknowledged user writes")
        revision, key = int(answer["resourceVersion"]), op["request"]["key"]
        if key not in log.touched.get(revision, ()):
            what = f"{op['request']['verb']} {resource_of(key)} {op['request']['name']}"
            verdict.add("A1", f"{what} was acknowledged at revision {revision}, where the log has none", op)
