"""A bench that is told to end by a signal stops what it has started, as it does after Ctrl-C.

By default SIGTERM and SIGHUP end a process on the spot: no `finally` runs, and the servers, which are in
sessions of their own, go on. Here they become a SystemExit, once: a second one breaks into no clean-up.
"""

from __future__ import annotations

import signal
from typing import Any, Final

import psutil

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)
_WAIT_S: Final = 10.0


class Ending:
    """`told` is the number of the signal that has come, 0 before."""

    def __init__(self) -> None:
        self.told = 0

    def install(self) -> None:
        """For this process; a signal that is ignored (nohup) stays so."""
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._on_signal)

    @property
    def exit_code(self) -> int:
        """As a shell says it."""
        return 128 + self.told

    def _on_signal(self, number: int, _: Any) -> None:
        if not self.told:  # a second one must not break into the clean-up
            self.told = number
            raise SystemExit(self.exit_code)


def stop_children() -> None:
    """SIGKILL to every process that this one has started and that still runs: one that was being started, or
    stopped, when the signal came."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(children, timeout=_WAIT_S)
