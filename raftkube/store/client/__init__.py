"""The store's client: pipelined requests, failover, watches that resume.

What does not live here: anything that runs inside a member; the two meet only over the RPC of
`raftkube.wire.rpc`.
"""

from raftkube.store.client.client import StoreClient
from raftkube.store.client.watch import Watch, WatchBatch

__all__ = ["StoreClient", "Watch", "WatchBatch"]
