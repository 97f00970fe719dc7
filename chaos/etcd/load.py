"""Load beside the workload, on keys of its own: transactions that compare a whole range and put one key.

Such a transaction is cheap to ask for and keeps etcd's apply loop busy before it takes the lock of its
backend. In 3.5.0 to 3.5.2 the index of an entry can be committed in that time without the entry's data; a
crash before the next commit (100 ms) then loses the entry on that member alone (etcd issue 13766).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

from chaos.etcd.client import EtcdClient
from raftkube.errors import StoreError
from raftkube.wire.store import Compare, Put, Txn

_PREFIX: Final = b"/load/"
_PREFIX_END: Final = b"/load0"
_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class CompareLoad:
    """`keys` are compared by each transaction; `tasks` ask for one after another."""

    keys: int = 1_000
    tasks: int = 3

    async def run(self, client: EtcdClient) -> None:
        """Until cancelled. Nothing is recorded: the keys lie outside what is judged, but their revisions
        are in the log."""
        for number in range(self.keys):
            await _try_put(client, _PREFIX + b"%06d" % number)
        async with trio.open_nursery() as nursery:
            for task in range(self.tasks):
                nursery.start_soon(self._ask, client, _PREFIX + b"task-%d" % task)

    async def _ask(self, client: EtcdClient, key: bytes) -> None:
        there = Compare(_PREFIX, "create", ">", 0, _PREFIX_END)
        count = 0
        while True:
            count += 1
            try:
                with trio.move_on_after(_TIMEOUT_S):
                    await client.txn(Txn((there,), (Put(key, b"%d" % count),)))
            except StoreError:
                await trio.sleep(0.05)


async def _try_put(client: EtcdClient, key: bytes) -> None:
    """Or not: nothing depends on a single key."""
    try:
        with trio.move_on_after(_TIMEOUT_S):
            await client.put(key, b"x" * 64)
    except StoreError:
        await trio.sleep(0.05)
