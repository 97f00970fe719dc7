"""Running a component in the foreground until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio


def run_until_signalled(serve: Callable[[], Awaitable[object]]) -> None:
    """Run `serve` under trio; SIGTERM or SIGINT cancels it, which is a graceful stop (exit code 0)."""
    trio.run(_run, serve)


async def _run(serve: Callable[[], Awaitable[object]]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    return

            nursery.start_soon(stop)
            await serve()
            nursery.cancel_scope.cancel()
