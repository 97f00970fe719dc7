"""Running a component in the foreground until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio


def run_until_signalled(serve: Callable[[], Awaitable[object]]) -> None:
    """Run `serve` under trio; SIGTERM or SIGINT cancels it, which is a graceful stop (exit code 0)."""
    trio.run(_run, serve)


class ServesUntil(Protocol):
    """Runs until the event is set and what leaving takes is done; `started` once it serves."""

    def __call__(self, stop: trio.Event, *, task_status: trio.TaskStatus[Any]) -> Awaitable[object]: ...


def run_until_stopped(serve: ServesUntil) -> None:
    """Run `serve` under trio; the first SIGTERM or SIGINT sets the event it is given, on which it comes to
    its end by itself (exit code 0). Before it serves there is nothing to leave, and a signal cancels it; so
    does a second one."""
    trio.run(_run_and_leave, serve)


async def _run_and_leave(serve: ServesUntil) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            stop, serving = trio.Event(), trio.Event()

            async def listen() -> None:
                async for _ in signals:
                    if stop.is_set() or not serving.is_set():
                        nursery.cancel_scope.cancel()
                    stop.set()

            async def run(*, task_status: trio.TaskStatus[Any]) -> None:
                await serve(stop, task_status=task_status)
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            await nursery.start(run)
            serving.set()


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
