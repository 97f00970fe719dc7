"""The quota on what the store holds: the leader refuses what would exceed it and raises the alarm NOSPACE.

The alarm is replicated: from then on every member refuses puts when it applies them, also those that were
under way, until an operator has made room and disarms it. What is in flight when the quota is reached may
exceed it, by no more than what may wait for the log.
"""

from __future__ import annotations

from typing import Any, Final

import structlog

from raftkube.errors import NoSpace, StoreError
from raftkube.limits import REQUEST_BYTES_MAX, VERSION_OVERHEAD_BYTES
from raftkube.store.core import StateMachine
from raftkube.store.core.space import NO_SPACE, takes_space
from raftkube.store.core.validation import NOSPACE
from raftkube.store.server.consensus import Consensus
from raftkube.store.server.machine import StoreMachine
from raftkube.wire.store import Alarm, Once, Op, op_to_wire

log = structlog.get_logger(__name__)

_WRITE_BYTES_MAX: Final = REQUEST_BYTES_MAX + VERSION_OVERHEAD_BYTES


class Quota:
    """Asked before a write is proposed. `quota_bytes` 0: there is none, but alarms still hold."""

    def __init__(self, machine: StoreMachine, consensus: Consensus, member: str, quota_bytes: int) -> None:
        self.quota_bytes = quota_bytes
        self._machine = machine
        self._consensus = consensus
        self._member = member
        self._raising = False

    def check(self, op: Op, request_bytes: int) -> None:
        """Raises NoSpace: `op`, whose keys and values have so many bytes, would exceed the quota.

        A numbered write may have been carried out before, or be under way: it goes into the log behind the
        alarm, where apply knows whether to repeat its answer or to refuse it.
        """
        core = self._machine.core
        if not (core.alarms or self._exceeded(core, request_bytes + VERSION_OVERHEAD_BYTES)):
            return
        if takes_space(op) and not core.repeats(op):
            self._refuse(core, numbered=type(op) is Once)

    def check_puts(self, puts: list[Any]) -> None:
        """As `check`, of plain puts in wire form that are proposed together."""
        core = self._machine.core
        if core.alarms or self._exceeded(core, len(puts) * _WRITE_BYTES_MAX):
            exact = sum([len(wire[1]) + len(wire[2]) + VERSION_OVERHEAD_BYTES for wire in puts])
            if core.alarms or self._exceeded(core, exact):
                self._refuse(core)

    def _exceeded(self, core: StateMachine, more_bytes: int) -> bool:
        return bool(self.quota_bytes) and core.db_size_in_use + more_bytes > self.quota_bytes

    def _refuse(self, core: StateMachine, *, numbered: bool = False) -> None:
        if self._consensus.view().role != "leader":
            return  # whoever leads decides; this member may lag behind
        if not core.alarms and not self._raising:
            self._raise(core)
        if numbered:
            return
        raise NoSpace(NO_SPACE, db_size_in_use=core.db_size_in_use, quota_bytes=self.quota_bytes)

    def _raise(self, core: StateMachine) -> None:
        def raised(outcome: Any) -> None:
            self._raising = False

        log.error("quota_exceeded", db_size_in_use=core.db_size_in_use, quota_bytes=self.quota_bytes)
        self._raising = True
        try:
            self._consensus.submit([op_to_wire(Alarm(True, NOSPACE, self._member))], raised)
        except StoreError as error:
            self._raising = False
            log.info("alarm_deferred", error=error.message)
