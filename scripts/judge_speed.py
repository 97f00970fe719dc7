"""How long the checkers take over a large valid history: `python scripts/judge_speed.py [OPERATIONS]`.

Makes the history (or takes the FILE of --file), judges it, prints seconds and what was judged. Exit code 1:
it was not valid.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
from pathlib import Path

import orjson

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "chaos_checkers")]

from valid_histories import ValidStore  # noqa: E402

from chaos.checkers.history import read_history  # noqa: E402
from chaos.checkers.judge import judge  # noqa: E402


def write(path: Path, operations: int, seed: int) -> None:
    """A history of so many operations: 16 clients, 40 keys, few leases."""
    store = ValidStore(seed, keys=40, clients=16, doubt=0.001)
    store.run(operations)
    with path.open("wb") as out:
        for line in store.finish():
            out.write(orjson.dumps(line) + b"\n")


def _times() -> tuple[float, float]:
    """Seconds of the clock, and of this process' processor."""
    times = os.times()
    return times.elapsed, times.user + times.system


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operations", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--file", type=Path, default=ROOT / "out" / "judge_speed.jsonl")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    if not chosen.file.exists():
        chosen.file.parent.mkdir(parents=True, exist_ok=True)
        write(chosen.file, chosen.operations, chosen.seed)
    gc.disable()  # as `python -m chaos check` does
    began = _times()
    with chosen.file.open("rb") as stream:
        history = read_history(stream)
    read = _times()
    verdict = judge(history)
    judged = _times()
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for what, before, after in (("read", began, read), ("judged", read, judged)):
        print(f"{what:6} {after[0] - before[0]:6.2f} s, {after[1] - before[1]:6.2f} s of processor")
    print(f"{memory_mb:.0f} MB at most")
    print(f"{verdict.word}; {verdict.checked}")
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
