"""Raft paper, figure 3: the properties that hold at every moment, looked at after every step of random
schedules: messages in any order of links, elections at any time, commands, crashes, lost messages."""

from __future__ import annotations

from random import Random

import pytest
from raft_rig import SETTINGS, Cluster, Server

STEPS = 1_500
Entry = tuple[int, int, bytes]


class Watched(Cluster):
    """A cluster whose history is judged as it happens."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size, seed=seed)
        self.random = Random(seed)
        self.leaders: dict[int, str] = {}
        self.led: dict[tuple[str, int], list[Entry]] = {}
        self.committed: dict[int, Entry] = {}
        self.proposed = 0

    def step(self) -> None:
        choice = self.random.random()
        name = self.random.choice([name for name in self.names if name not in self.away])
        waiting = [link for link, messages in self.links.items() if messages and not self.away & set(link)]
        if choice < 0.80 and waiting:
            self.deliver(*self.random.choice(waiting))
        elif choice < 0.88 and self[name].role == "leader":
            self.proposed += 1
            self[name].propose(b"%d" % self.proposed)
        elif choice < 0.90:
            self.campaign(name)
        elif choice < 0.91 and len(self.away) + 1 <= (len(self.names) - 1) // 2:
            self.crash(name)
        elif choice < 0.93 and self.away:
            self.restart(self.random.choice(sorted(self.away)))
        elif choice < 0.94 and waiting:
            self.links[self.random.choice(waiting)].clear()
        else:
            self.clock.now += SETTINGS.heartbeat_s + 0.001
            self[name].replica.pump()
        for each in self.names:
            self.collect(each)

    def judge(self) -> None:
        for name in self.names:
            if name not in self.away:
                self.judge_leader(self[name])
                self.judge_committed(self[name])

    def judge_leader(self, server: Server) -> None:
        if server.role != "leader":
            return
        assert self.leaders.setdefault(server.term, server.name) == server.name, "election safety (§5.2)"
        entries = server.entries
        known = self.led.get((server.name, server.term))
        if known is None:
            missing = [entry for entry in self.committed.values() if entry[1] < server.term]
            assert set(missing) <= set(entries), "leader completeness (§5.4)"
        else:
            assert entries[: len(known)] == known, "leader append-only (§5.3)"
        self.led[server.name, server.term] = entries

    def judge_committed(self, server: Server) -> None:
        for entry in server.entries:
            if entry[0] <= server.commit:
                held = self.committed.setdefault(entry[0], entry)
                assert held == entry, "state machine safety (§5.4.3)"

    def judge_logs(self) -> None:
        for a in self.names:
            for b in self.names:
                first, second = self[a].entries, self[b].entries
                equal = [at for at, pair in enumerate(zip(first, second, strict=False)) if same(*pair)]
                if equal:
                    upto = equal[-1] + 1
                    assert first[:upto] == second[:upto], "log matching (§5.3)"


def same(a: Entry, b: Entry) -> bool:
    return a[:2] == b[:2]


@pytest.mark.parametrize(("size", "seed"), [(3, 1), (3, 2), (5, 3), (5, 4), (5, 5)])
def test_the_properties_of_figure_3(size: int, seed: int) -> None:
    """Election safety, leader append-only, log matching, leader completeness, state machine safety."""
    cluster = Watched(size, seed)
    for number in range(STEPS):
        cluster.step()
        cluster.judge()
        if number % 20 == 0:
            cluster.judge_logs()
    cluster.judge_logs()
    for name in sorted(cluster.away):
        cluster.restart(name)
    best = max(cluster.names, key=lambda name: cluster[name].log[-1][::-1])  # the newest log can win
    leader = cluster.elect(best)
    leader.propose(b"last")
    for _ in range(15):
        cluster.beat(leader.name)
    cluster.judge()
    logs = {tuple(cluster[name].entries) for name in cluster.names}
    assert len(logs) == 1
    assert all(cluster[name].machine.operations[-1:] == [b"last"] for name in cluster.names)
    # The schedule did what it is for.
    assert len(cluster.leaders) >= 3
    assert len(cluster.committed) >= 10
