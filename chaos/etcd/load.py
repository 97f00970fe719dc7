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
_PUTS_MAX: Final = 100  # of one transaction; etcd takes 128


@dataclass(frozen=True, slots=True)
class CompareLoad:
    """`keys` are compared by each transaction; `tasks` ask for one after another."""

    keys: int = 3_000
    tasks: int = 3

    async def run(self, client: EtcdClient) -> None:
        """Until cancelled. Nothing is recorded: the keys lie outside what is judged, but their revisions
        are in the log."""
        for first in range(0, self.keys, _PUTS_MAX):
            last = min(first + _PUTS_MAX, self.keys)
            await _try(
                client, Txn((), tuple(Put(_PREFIX + b"%06d" % n, b"x" * 64) for n in range(first, last)))
            )
        async with trio.open_nursery() as nursery:
            for task in range(self.tasks):
                nursery.start_soon(self._ask, client, _PREFIX + b"task-%d" % task)

    async def _ask(self, client: EtcdClient, key: bytes) -> None:
        there = Compare(_PREFIX, "create", ">", 0, _PREFIX_END)
        count = 0
        while True:
            count += 1
            await _try(client, Txn((there,), (Put(key, b"%d" % count),)))


async def _try(client: EtcdClient, txn: Txn) -> None:
    """Or not: nothing depends on a single transaction."""
    try:
        with trio.move_on_after(_TIMEOUT_S):
            await client.txn(txn)
    except StoreError:
        await trio.sleep(0.05)
