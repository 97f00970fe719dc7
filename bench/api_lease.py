"""Renews a Lease five times a second, and says how long the slowest renewal took."""

from __future__ import annotations

import http.client
import time
from typing import Any, Final

import orjson

from bench.api_cluster import client_context
from bench.api_process import Orders, report
from bench.errors import Violation
from bench.loop import Endpoint

_PERIOD_S: Final = 0.2
_PATH: Final = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


def run(job: dict[str, Any], orders: Orders) -> None:
    """`job`: endpoint."""
    endpoint = Endpoint(**job["endpoint"])
    connection = http.client.HTTPSConnection(
        endpoint.host, endpoint.port, timeout=60, context=client_context(endpoint)
    )
    lease = {"metadata": {"name": "bench"}, "spec": {"holderIdentity": "bench", "leaseDurationSeconds": 15}}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease}
    _ask(connection, "POST", _PATH, body, "application/json")
    report(state="ready")
    took: list[float] = []
    while orders.poll() is None:
        started = time.monotonic()
        spec = {"spec": {"holderIdentity": "bench", "leaseTransitions": len(took)}}
        _ask(connection, "PATCH", f"{_PATH}/bench", spec, "application/merge-patch+json")
        took.append(time.monotonic() - started)
        time.sleep(max(_PERIOD_S - took[-1], 0))
    report(count=len(took), max_ms=round(max(took, default=0.0) * 1e3, 1))


def _ask(connection: http.client.HTTPSConnection, method: str, path: str, body: Any, kind: str) -> None:
    connection.request(method, path, orjson.dumps(body), {"Content-Type": kind})
    answer = connection.getresponse()
    told = answer.read()
    if answer.status >= 300:
        raise Violation(f"{method} {path} was answered {answer.status}: {told[:200].decode()}")
