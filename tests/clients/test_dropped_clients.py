"""Clients that go without a word leave nothing behind in the API server: no descriptor, no task, no watch."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import trio
import trio.testing
from api_world import World, config_map, world

from raftkube.net.http_client import HttpClient

CM = "/api/v1/namespaces/default/configmaps"
WATCHES = 200


def counts() -> tuple[int, int]:
    """(file descriptors, trio tasks) of this process: the server and its clients."""
    gc.collect()
    return psutil.Process().num_fds(), trio.lowlevel.current_statistics().tasks_living


async def settled(wanted: tuple[int, int]) -> None:
    """Poll until nothing is left over."""
    with trio.fail_after(60):
        while any(now > before for now, before in zip(counts(), wanted, strict=True)):
            await trio.sleep(0.02)


async def _watch(w: World, target: str, opened: list[None], *, task_status: trio.TaskStatus[None]) -> None:
    http = HttpClient(w.network, w.addresses[0], w.tls("admin", "system:masters"))
    async with http.stream("GET", target) as stream:
        assert stream.status == 200
        opened.append(None)
        task_status.started()
        async for _ in stream:
            pass


async def test_dropped_watches_leave_nothing_behind(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        assert (await client.post(CM, config_map("one"))).code == 201
        # At rest: the cache's own feed comes and goes with a task while the write above is taken in.
        await trio.testing.wait_all_tasks_blocked(0.1)
        base = counts()
        for target in (f"{CM}?watch=1", f"{CM}?watch=1&resourceVersion=1&allowWatchBookmarks=true"):
            opened: list[None] = []
            async with trio.open_nursery() as nursery:
                for _ in range(WATCHES // 2):
                    await nursery.start(_watch, w, target, opened)
                assert counts()[0] > base[0] + WATCHES // 2  # two ends each, less what else was closed
                nursery.cancel_scope.cancel()  # connections are cut, not closed in order
            assert len(opened) == WATCHES // 2
            # A server that waits to be told would notice at its next event: it must not need one.
            await settled(base)
        assert (await client.patch(f"{CM}/one", {"data": {"a": "b"}})).code == 200
