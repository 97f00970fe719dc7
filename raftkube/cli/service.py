"""Running a component in the foreground until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio


def run_until_signalled(serve: Callable[[], Awaitable[object]]) -> None:
    """Run `serve` under trio; SIGTERM or SIGINT cancels it, which is a graceful stop (exit code 0)."""
    trio.run(_run, serve)


def run_until_stopped(serve: Callable[[trio.Event], Awaitable[object]]) -> None:
    """Run `serve` under trio; the first SIGTERM or SIGINT sets the event it is given, on which it comes to
    its end by itself (exit code 0); a second one cancels it."""
    trio.run(_run_and_leave, serve)


async def _run_and_leave(serve: Callable[[trio.Event], Awaitable[object]]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            stop = trio.Event()

            async def listen() -> None:
                async for _ in signals:
                    if stop.is_set():
                        nursery.cancel_scope.cancel()
                    stop.set()

            nursery.start_soon(listen)
            await serve(stop)
            nursery.cancel_scope.cancel()


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
