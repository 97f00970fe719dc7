"""The replicated store: its state machine, consensus, server and client.

* `core`: the MVCC state machine, pure. `raft`: consensus around pysyncobj. `server`, `client`: RPC.

What does not live here: the messages that cross a wire (`raftkube.wire`), connections (`raftkube.net`),
and anything that knows of Kubernetes objects.
"""
