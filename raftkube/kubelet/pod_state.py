"""What the kubelet remembers of one pod between two looks at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from raftkube.kubelet.core.backoff import Backoff
from raftkube.kubelet.core.plan import Waiting
from raftkube.kubelet.core.pods import Object
from raftkube.kubelet.runtimes.base import PodRef

_ANNOUNCED_MAX: Final = 1_000


@dataclass(slots=True)
class ImageTry:
    """The last refusal of an image; `retry_at` is a wall second."""

    backoff: Backoff
    retry_at: float
    message: str


@dataclass(eq=False, slots=True)
class PodState:
    """`pod` is None for a pod that only the runtime knows; `gone`: the API has it no more.

    `sent` is the last status
    written, with the resourceVersion that it got; `announced` holds what events were already recorded.
    """

    ref: PodRef
    pod: Object | None
    gone: bool = False
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    images: dict[str, ImageTry] = field(default_factory=dict)
    failure: Waiting | None = None
    sent: tuple[Object, str] | None = None
    delete_sent: bool = False
    announced: set[tuple[str, str]] = field(default_factory=set)

    def announce_once(self, reason: str, about: str) -> bool:
        """True the first time that this is asked."""
        known = (reason, about) in self.announced
        if len(self.announced) >= _ANNOUNCED_MAX:
            self.announced.clear()
        self.announced.add((reason, about))
        return not known
