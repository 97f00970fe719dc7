"""Liveness, readiness and startup probes: what their results add up to.

Source: k8s.io/kubernetes/pkg/kubelet/prober/worker.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from raftkube.kubelet.core.pods import Object

KINDS = ("startupProbe", "livenessProbe", "readinessProbe")


class ProbeSpec(NamedTuple):
    """Times in seconds, with upstream's defaults."""

    kind: str
    action: Object
    initial_delay_s: float
    period_s: float
    timeout_s: float
    success_threshold: int
    failure_threshold: int


def probe_spec(container: Object, kind: str) -> ProbeSpec | None:
    """The container's probe of this kind, if it has one."""
    probe = container.get(kind)
    if not probe:
        return None
    return ProbeSpec(
        kind,
        probe,
        float(probe.get("initialDelaySeconds") or 0),
        float(probe.get("periodSeconds") or 10),
        float(probe.get("timeoutSeconds") or 1),
        int(probe.get("successThreshold") or 1),
        int(probe.get("failureThreshold") or 3),
    )


@dataclass(slots=True)
class ProbeCount:
    """Successes or failures in a row; `verdict` is None until a threshold is reached."""

    spec: ProbeSpec
    verdict: bool | None = None
    _last: bool | None = None
    _in_a_row: int = 0

    def add(self, success: bool) -> bool:
        """Take one result; True if the verdict changed."""
        self._in_a_row = self._in_a_row + 1 if success == self._last else 1
        self._last = success
        threshold = self.spec.success_threshold if success else self.spec.failure_threshold
        if self._in_a_row < threshold or self.verdict == success:
            return False
        self.verdict = success
        return True
