"""The controller manager's metrics, named as upstream's."""

from __future__ import annotations

from collections.abc import Sized

from prometheus_client import CollectorRegistry, Counter, Gauge


class ControllerMetrics:
    """Of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leading = Gauge(
            "leader_election_master_status", "1 while this process leads.", ["name"], registry=self.registry
        ).labels("kube-controller-manager")
        self.reconciled = Counter(
            "controller_runtime_reconcile",
            "Keys worked on, by controller and result.",
            ["controller", "result"],
            registry=self.registry,
        )
        self._depth = Gauge(
            "workqueue_depth", "Keys that wait, by controller.", ["name"], registry=self.registry
        )

    def watch_queue(self, name: str, queue: Sized) -> None:
        """Show how long this queue is whenever somebody asks."""
        self._depth.labels(name).set_function(lambda: float(len(queue)))
