"""The collector never walks a large state, and still takes young cycles."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import gc, weakref
from raftkube.cli.collector import tune_collector
from raftkube.store.core import StateMachine
from raftkube.wire.store import Put
tune_collector()
looked_at = []
def note(phase, info):
    if phase == "start":
        looked_at.append(sum(len(gc.get_objects(generation)) for generation in range(info["generation"] + 1)))
gc.callbacks.insert(0, note)
machine = StateMachine()
for number in range(60_000):
    machine.apply(Put(b"%d" % number, b"v"))
    machine.take_events()
frozen = gc.get_freeze_count()
class Node: pass
node = Node(); node.itself = node
gone = weakref.ref(node); del node
spare = [[n] for n in range(20_000)]
print(max(looked_at), len(looked_at), frozen, gone() is None)
"""


def test_no_collection_sees_the_whole_state() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    largest, collections, frozen, young_cycle_taken = done.stdout.split()
    assert int(collections) > 5
    assert int(largest) < 80_000, "of about 240,000 objects"
    assert int(frozen) > 100_000
    assert young_cycle_taken == "True"
