"""What all tests share.

A shell without job control starts background commands with SIGINT ignored, and children inherit that: tests
that interrupt a process would then wait for ever.
"""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
