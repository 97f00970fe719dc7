"""Prometheus metrics by upstream's names (k8s.io/apiserver/pkg/endpoints/metrics)."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from raftkube.apiserver.core.request_info import RequestInfo
from raftkube.net.http import Response

_LABELS: Final = ("verb", "group", "version", "resource", "subresource")
_BUCKETS: Final = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2, 3, 5, 10, 30, 60)
_LONG_RUNNING: Final = frozenset(("watch",))


class Metrics:
    """The metrics of one API server; several in one process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._total = Counter(
            "apiserver_request_total", "Requests by verb, resource and HTTP code.", (*_LABELS, "code"),
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "apiserver_request_duration_seconds", "Time until the answer is ready; no watches.", _LABELS,
            buckets=_BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._objects = Gauge(
            "apiserver_storage_objects", "Objects of a resource.", ("resource",), registry=self._registry
        )
        self._inflight = Gauge(
            "apiserver_current_inflight_requests", "Requests being answered.", ("request_kind",),
            registry=self._registry,
        )  # fmt: skip

    def observe(self, info: RequestInfo, code: int, seconds: float) -> None:
        """Count one answered request. seconds: until its answer was ready, or its head for a stream."""
        labels = (info.verb.upper(), info.group, info.version, info.resource, info.subresource)
        self._total.labels(*labels, str(code)).inc()
        if info.verb not in _LONG_RUNNING:
            self._seconds.labels(*labels).observe(seconds)

    def in_flight(self, info: RequestInfo, change: int) -> None:
        """One more (1) or less (-1) request being answered."""
        kind = "readOnly" if info.verb in ("get", "list", "watch", "head") else "mutating"
        self._inflight.labels(kind).inc(change)

    def set_objects(self, resource: str, count: int) -> None:
        """How many objects of a resource (`pods`, `deployments.apps`) there are."""
        self._objects.labels(resource).set(count)

    def response(self) -> Response:
        """What Prometheus reads."""
        return Response(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)
