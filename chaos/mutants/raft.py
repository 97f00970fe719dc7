"""Mutants of elections, replication, membership and reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chaos.mutants.mutant import Mutant
from raftkube.errors import DeadlineExpired
from raftkube.limits import PEER_FRAME_BYTES_MAX
from raftkube.store.raft import messages as msg
from raftkube.store.raft.changes import Changes
from raftkube.store.raft.guard import Guard
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.mutants import Mutant as Defects
from raftkube.store.raft.peers import Peers
from raftkube.store.raft.private import LEADER, Core
from raftkube.store.raft.proposals import Proposals
from raftkube.store.raft.reads import Reads
from raftkube.store.raft.replica import Replica
from raftkube.store.server.consensus import ReadGate
from raftkube.wire.frames import FrameReader

Function = Callable[..., Any]


def _no_round(original: Function) -> Function:
    def begin_round(self: Reads, view: Any) -> None:
        original(self, view)
        self._confirmed()

    return begin_round


def _any_commit_index(original: Function) -> Function:
    return lambda self: original(self)._replace(committed_in_term=self.leading)


def _rounds_from_zero(original: Function) -> Function:
    def init(self: Reads, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self._round = 0

    return init


def _truncate_always(original: Function) -> Function:
    def on_append(
        self: Guard, name: str, term: int, commit: int, prev_index: int, prev_term: int, entries: list[Any]
    ) -> None:
        if prev_index < self._journal.first_index:
            original(self, name, term, commit, prev_index, prev_term, entries)
        elif self.follow(name, term):
            self._deliver_append(name, term, commit, prev_index, prev_term, entries)

    return on_append


def _commit_unverified(original: Function) -> Function:
    def confirm(self: Guard, name: str, term: int, commit: int, verified: int) -> None:
        last = self._journal.last_index
        reply = (verified + 1, False)
        last_term = self._journal.term_at(last) or 0
        self._deliver_append(name, term, commit, last, last_term, [], reply=reply)

    return confirm


def _vouch_for_all(original: Function) -> Function:
    def confirm(self: Guard, name: str, term: int, commit: int, verified: int) -> None:
        last = self._journal.last_index
        last_term = self._journal.term_at(last) or 0
        self._deliver_append(name, term, min(commit, verified), last, last_term, [])

    return confirm


def _any_term_acknowledges(original: Function) -> Function:
    def on_appended(self: Guard, name: str, term: int, next_index: int, reset: bool, success: bool) -> None:
        if self.core.role == LEADER:
            term, next_index = self.core.term, min(next_index, self._journal.last_index + 1)
        original(self, name, term, next_index, reset, success)

    return on_appended


def _send_before_sync(original: Function) -> Function:
    def send(self: Guard, node: Any, message: dict[str, Any]) -> bool:
        sent = bool(original(self, node, message))
        self.release()
        return sent

    return send


def _count_every_vote(original: Function) -> Function:
    def on_vote(self: Guard, name: str, term: int) -> None:
        for _ in range(2):
            self._onMessageReceived(self._others[name], {"type": "response_vote", "term": term})

    return on_vote


def _vote_for_anyone(original: Function) -> Function:
    def on_request_vote(
        self: Guard, name: str, term: int, last_index: int, last_term: int, transfer: bool
    ) -> None:
        original(self, name, term, 1 << 40, 1 << 40, transfer)

    return on_request_vote


def _campaign_at_once(original: Function) -> Function:
    return lambda self: True


def _pre_vote_for_anyone(original: Function) -> Function:
    def on_pre_vote(self: Guard, name: str, number: int, term: int, last_index: int, last_term: int) -> None:
        original(self, name, number, term, 1 << 40, 1 << 40)

    return on_pre_vote


def _hear_older_connections(original: Function) -> Function:
    async def listen_to(self: Peers, name: str, connection: Any) -> None:
        self._incoming.pop(name, None)  # so that it is not ended
        reader = FrameReader(PEER_FRAME_BYTES_MAX)
        self._incoming[name] = connection
        try:
            while data := await connection.receive_some():
                self._take(name, connection, [msg.decode(body) for body in reader.feed(data)])
        finally:
            if self._incoming.get(name) is connection:
                del self._incoming[name]
                self._events.peer_reset(name)

    return listen_to


def _success_for_what_was_replaced(original: Function) -> Function:
    def step_down(self: Proposals, leader: str | None) -> None:
        for index, batch in self._in_flight.items():
            for group in batch.groups:
                group.waiter.resolve([(index, 0)] * len(group.packed))
        original(self, leader)

    return step_down


def _vote_in_memory(original: Function) -> Function:
    def set_current_term(self: SegmentedJournal, term: int, voted_for: str | None) -> None:
        self._term, self._vote = term, voted_for

    return set_current_term


def _no_gate(original: Function) -> Function:
    return lambda self, done: done(None)


def _any_acknowledged_round(original: Function) -> Function:
    def receive(self: Reads, name: str, message: list[Any], view: Any) -> None:
        if message[0] == msg.READ_ROUND_OK and view.leading:
            message = [message[0], view.term, self._round]
        original(self, name, message, view)

    return receive


def _any_previous_term(original: Function) -> Function:
    def on_append(
        self: Guard, name: str, term: int, commit: int, prev_index: int, prev_term: int, entries: list[Any]
    ) -> None:
        ours = self._journal.term_at(prev_index)
        original(self, name, term, commit, prev_index, prev_term if ours is None else ours, entries)

    return on_append


def _any_entry_matches(original: Function) -> Function:
    def matching(self: Guard, entries: list[Any], last: int) -> int:
        return sum(index <= last for _, index, _ in entries)

    return matching


def _obey_old_leaders(original: Function) -> Function:
    def on_append(self: Guard, name: str, term: int, *rest: Any) -> None:
        if self.core.role != LEADER:
            term = max(term, self.core.term)
        original(self, name, term, *rest)

    return on_append


def _learners_vote(original: Function) -> Function:
    def set_members(self: Core, voters: list[str], learners: list[str]) -> None:
        original(self, [*voters, *learners], [])

    return set_members


def _changes_at_once(original: Function) -> Function:
    def standing(self: Changes, now: float) -> Any:
        return original(self, now)._replace(change_under_way=False, committed_in_term=True)

    return standing


def _in_force_once_committed(original: Function) -> Function:
    def set_members(self: Replica, configuration: Any) -> None:
        core = self.core
        committed = self.journal.configurations.at(max(core.commit_index, 1))
        original(self, committed)

    return set_members


def _apply_in_force(original: Function) -> Function:
    def check(self: Replica, committed: Any) -> None:
        self._set_members(committed)
        original(self, committed)

    return check


def _votes_of_strangers(original: Function) -> Function:
    def on_vote(self: Guard, name: str, term: int) -> None:
        if (term, name) not in self._votes:
            self._votes.add((term, name))
            self._onMessageReceived(self._node(name), {"type": "response_vote", "term": term})

    return on_vote


def _defective(original: Function) -> Function:
    def init(self: Replica, **options: Any) -> None:
        original(self, **(options | {"mutant": Defects("planted", acknowledge_at_proposal=True)}))

    return init


def _definite_refusal(original: staticmethod[..., Any]) -> staticmethod[..., Any]:
    def fail(groups: list[Any], error: Exception) -> None:
        for group in groups:
            group.waiter.fail(DeadlineExpired("planted: this did not happen"))

    return staticmethod(fail)


_OLDER: Final = (Peers, "_listen_to", _hear_older_connections)
_PRE_VOTE: Final = (Guard, "_on_pre_vote", _pre_vote_for_anyone)
_CAMPAIGN: Final = (Guard, "may_campaign", _campaign_at_once)
_ELECTIONS: Final = "depose,isolate,kill,pause,reset"
_READERS: Final = {"hosts": 5, "workload": {"clients": 2, "think_s": 0.3, "keys": 3, "lease_clients": 0}}
_STALE: Final = "late,half-open,flap,reset,slow-link,depose"

MUTANTS: Final = (
    Mutant("read-without-round", "reads are not confirmed by a majority",
           ((Reads, "_begin_round", _no_round),), "depose,transfer,pause", _READERS),
    Mutant("read-without-index", "a member serves reads from its own state, without asking the leader",
           ((ReadGate, "submit", _no_gate),), "partition,link", _READERS),
    Mutant("read-before-first-commit", "a new leader serves reads before it committed in its term",
           ((Replica, "_view", _any_commit_index),), "depose,transfer,kill", _READERS),
    Mutant("rounds-from-zero", "read rounds of a new life have the numbers of the old one",
           ((Reads, "__init__", _rounds_from_zero),), "kill,link,pause",
           doubt="an answer to the old life would have to reach the new one in the same term"),
    Mutant("any-round-confirms", "answers to earlier read rounds confirm the one under way",
           ((Reads, "receive", _any_acknowledged_round),), "partition,link",
           doubt="the answer is of the same term, and younger than the others need to elect"),
    Mutant("truncate-always", "an append cuts the tail behind it always; older connections are heard",
           ((Guard, "_on_append", _truncate_always), _OLDER), _STALE,
           doubt="a late append must arrive between the acknowledgement that it undoes and the next one"),
    Mutant("commit-unverified",
           "a commit index beyond what was verified is taken; older connections are heard",
           ((Guard, "_confirm", _commit_unverified), _OLDER), _STALE,
           doubt="what lies behind is a former leader's tail only if its append was cut short"),
    Mutant("vouch-for-all", "a follower acknowledges more than was asked",
           ((Guard, "_confirm", _vouch_for_all), _OLDER), _STALE,
           doubt="the same as commit-unverified, from the follower's side"),
    Mutant("any-term-acknowledges",
           "acknowledgements of other terms count; older connections are heard",
           ((Guard, "_on_appended", _any_term_acknowledges), _OLDER), _STALE,
           doubt="a member must lead again, and a late answer to its first reign come after its log was cut"),
    Mutant("any-previous-term", "the term of the entry before an append is not compared",
           ((Guard, "_on_append", _any_previous_term),), _ELECTIONS),
    Mutant("any-entry-matches", "an entry of another term is taken for the one that should stand there",
           ((Guard, "_matching", _any_entry_matches),), _ELECTIONS),
    Mutant("old-leaders-obeyed", "appends of earlier terms are taken; older connections are heard",
           ((Guard, "_on_append", _obey_old_leaders), _OLDER), _STALE),
    Mutant("send-before-sync", "acknowledgements and votes leave before the sync",
           ((Guard, "send", _send_before_sync),), "power-loss-mid-write,power-loss,depose,kill",
           doubt="power must go between an answer and its sync, and the leader before it sends again"),
    Mutant("vote-in-memory", "term and vote are not written; there is no pre-vote",
           ((SegmentedJournal, "setCurrentTerm", _vote_in_memory), _CAMPAIGN), "kill,power,partition"),
    Mutant("count-every-vote", "a vote counts twice; there is no pre-vote",
           ((Guard, "_on_vote", _count_every_vote), _CAMPAIGN), "partition,kill",
           settings={"size": 5}),
    Mutant("vote-for-anyone", "votes and pre-votes go to candidates with older logs",
           ((Guard, "_on_request_vote", _vote_for_anyone), _PRE_VOTE), "partition,kill,power"),
    Mutant("acknowledge-at-proposal", "a leader applies and answers before it has replicated",
           ((Replica, "__init__", _defective),), "depose,kill,isolate"),
    Mutant("success-at-step-down", "what is in flight when leadership ends is called a success",
           ((Proposals, "step_down", _success_for_what_was_replaced),), "partition",
           doubt="what is planted is no answer of the store and fails on its way out; the fuzz finds it"),
    Mutant("doubt-called-refusal", "what may be committed yet is answered as never proposed",
           ((Proposals, "_fail", _definite_refusal),), "partition,pause,transfer"),
    Mutant("learners-count", "a learner counts for commits and elections",
           ((Core, "set_members", _learners_vote),), "member,rot,kill,partition",
           doubt="a learner that counts makes majorities larger; only its own log can then be too short"),
    Mutant("changes-at-once", "a second change of the members begins while one is uncommitted",
           ((Changes, "standing", _changes_at_once),), "member,partition,rot",
           doubt="the harness' operator makes one change at a time, and waits for it"),
    Mutant("members-once-committed", "a change of the members is in force from its commit, not its entry",
           ((Replica, "_set_members", _in_force_once_committed),
            (Replica, "_check_membership", _apply_in_force)),
           "member,rot,partition,kill",
           doubt="one change at a time is safe as long as both majorities meet, early or late"),
    Mutant("votes-of-strangers", "the votes of learners and of members that were removed count",
           ((Guard, "_on_vote", _votes_of_strangers),), "member,rot,partition,kill",
           doubt="a member that was removed stops as soon as it hears of it"),
)  # fmt: skip
