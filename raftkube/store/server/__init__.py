"""A member's outer half: client RPC, the watch hub, the lease clock, compaction by history window.

What does not live here: consensus (`raftkube.store.raft`), the state machine (`raftkube.store.core`),
and anything that knows of Kubernetes objects.
"""
