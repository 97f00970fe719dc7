"""The scheduler's metrics, named as upstream's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class SchedulerMetrics:
    """Counts of one scheduler, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leading = Gauge(
            "leader_election_master_status",
            "1 while this process leads.",
            ["name"],
            registry=self.registry,
        ).labels("kube-scheduler")
        self.attempts = Counter(
            "scheduler_schedule_attempts",
            "Attempts to schedule a pod, by result.",
            ["result"],
            registry=self.registry,
        )
        self.pending = Gauge(
            "scheduler_pending_pods", "Pods that wait, by queue.", ["queue"], registry=self.registry
        )
