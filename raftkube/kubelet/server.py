"""What a kubelet serves on its port: logs, pods, health, usage. Who calls must hold a certificate of the
cluster's CA in the group system:masters (the API servers do).

exec, attach and port-forward are not served yet.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from raftkube.api.status import ApiError, bad_request, forbidden, not_found
from raftkube.api.timestamps import rfc3339
from raftkube.clock import Clock
from raftkube.kubelet.core import pods
from raftkube.kubelet.core.pods import Object
from raftkube.kubelet.log_reader import LogOptions, log_options, send_log
from raftkube.kubelet.pod_loop import PodLoop
from raftkube.kubelet.runtimes.base import Runtime
from raftkube.net.http import AnyResponse, BodySender, Request, Response, StreamResponse

_ADMINS: Final = "system:masters"
_LATER: Final = ("exec", "attach", "portForward", "run", "cri")


class KubeletServer:
    """The handler of requests."""

    def __init__(self, loop: PodLoop, runtime: Runtime, clock: Clock, *, node: str) -> None:
        self._loop = loop
        self._runtime = runtime
        self._clock = clock
        self._node = node

    async def handle(self, request: Request) -> AnyResponse:
        """Answer one request. Raises ApiError."""
        if request.path == "/healthz":
            return _text("ok")
        if request.peer is None or _ADMINS not in request.peer.organizations:
            who = "anonymous" if request.peer is None else request.peer.common_name
            raise forbidden(
                "", "nodes", self._node, f'User "{who}" cannot use the kubelet; ask an API server'
            )
        if request.method != "GET" and not request.path.startswith(tuple(f"/{name}" for name in _LATER)):
            raise ApiError(405, "MethodNotAllowed", f"{request.method} is not allowed here; use GET")
        head, *rest = request.path.strip("/").split("/")
        if head == "containerLogs" and len(rest) == 3:
            query = dict(parse_qsl(request.query, keep_blank_values=True))
            return self._logs(rest[0], rest[1], rest[2], query)
        if head in _LATER:
            raise ApiError(404, "NotFound", f"this kubelet does not serve {head} yet")
        answer = {"/pods": self._pods, "/stats/summary": self._summary, "/metrics": self._metrics}
        if request.path not in answer:
            raise ApiError(404, "NotFound", f"a kubelet has nothing at {request.path!r}")
        return answer[request.path]()

    # Logs -------------------------------------------------------------------------------------

    def _logs(self, namespace: str, name: str, container: str, query: dict[str, str]) -> AnyResponse:
        options = log_options(query, self._clock.wall())
        pod = self._loop.find(namespace, name)
        if pod is None:
            raise not_found("", "pods", name)
        source = self._source(pod, container, options)

        async def run(sender: BodySender) -> None:
            if source is not None:
                await send_log(source, options, sender.send)

        return StreamResponse(200, run, content_type="text/plain")

    def _source(self, pod: Object, container: str, options: LogOptions) -> Any:
        name = pod["metadata"]["name"]
        if all(spec["name"] != container for spec in pods.all_containers(pod)):
            raise bad_request(f"container {container} is not valid for pod {name}")
        attempts = self._runtime.attempts(pods.uid(pod)).get(container) or ()
        if options.previous and len(attempts) < 2 and (not attempts or attempts[0].running):
            raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
        if not attempts:
            why = _waiting_reason(pod, container)
            raise bad_request(f'container "{container}" in pod "{name}" is waiting to start: {why}')
        # While the newest attempt has ended and waits to be started again, it is the previous one.
        last_ended = attempts[0] if not attempts[0].running else attempts[-1]
        return self._runtime.log(last_ended.id if options.previous else attempts[0].id)

    # State ------------------------------------------------------------------------------------

    def _pods(self) -> Response:
        items = self._loop.pods()
        return Response(
            200, orjson.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
        )

    def _summary(self) -> Response:
        now = rfc3339(self._clock.wall())
        stats = [self._pod_stats(pod, now) for pod in self._loop.pods()]
        return Response(200, orjson.dumps({"node": {"nodeName": self._node}, "pods": stats}))

    def _pod_stats(self, pod: Object, now: str) -> Object:
        metadata = pod["metadata"]
        containers = []
        for name, attempts in self._runtime.attempts(pods.uid(pod)).items():
            usage = self._runtime.usage(attempts[0].id) if attempts else None
            if usage is None:
                continue
            cpu = {"time": now, "usageCoreNanoSeconds": int(usage.cpu_s * 1e9)}
            memory = {"time": now, "workingSetBytes": usage.rss_bytes, "rssBytes": usage.rss_bytes}
            start = rfc3339(attempts[0].started_at)
            containers.append({"name": name, "startTime": start, "cpu": cpu, "memory": memory})
        reference = {"name": metadata["name"], "namespace": metadata.get("namespace"), "uid": metadata["uid"]}
        return {"podRef": reference, "containers": containers}

    def _metrics(self) -> Response:
        attempts = [self._runtime.attempts(pods.uid(pod)) for pod in self._loop.pods()]
        running = sum(a[0].running for of_pod in attempts for a in of_pod.values() if a)
        lines = (
            "# HELP kubelet_running_pods Number of pods that this kubelet looks after",
            "# TYPE kubelet_running_pods gauge",
            f"kubelet_running_pods {len(attempts)}",
            "# HELP kubelet_running_containers Number of containers that run",
            "# TYPE kubelet_running_containers gauge",
            f"kubelet_running_containers {running}",
        )
        return _text("\n".join(lines) + "\n")


def _text(text: str) -> Response:
    return Response(200, text.encode(), content_type="text/plain; charset=utf-8")


def _waiting_reason(pod: Object, container: str) -> str:
    status = pod.get("status") or {}
    told = (status.get("containerStatuses") or []) + (status.get("initContainerStatuses") or [])
    for one in told:
        if one["name"] == container and "waiting" in one.get("state", {}):
            return str(one["state"]["waiting"].get("reason", "ContainerCreating"))
    return "ContainerCreating"
