"""Raft for one member of the store: pysyncobj decides elections, log and commit; this folder makes it safe.

* `private`: every private name of pysyncobj that is touched, in one place.
* `journal`, `journal_format`: the durable log, term, vote and commit index.
* `messages`, `peers`: what members say to each other, and the connections that carry it.
* `guard`, `prevote`, `progress`: the rules that pysyncobj lacks (terms on acknowledgements, the paper's
  append rule, pre-vote, leader stickiness, ...).
* `proposals`, `reads`: group commit and linearizable reads.
* `snapshots`: state machine images, made here or received from the leader.
* `replica`: the step that ticks, syncs and releases. `driver`: `RaftNode`, which takes it when it is due.

What does not live here: the state machine (`store.core`), clients' requests (`store.server`).
"""
