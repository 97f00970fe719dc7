"""The guard: what stands between pysyncobj and the other members, and makes it keep Raft's rules.

pysyncobj 0.3.17 decides; the guard filters and rewrites what it sends and hears. Its mends, with the
defect that each one answers:

* acknowledgements carry their term, those of other terms are dropped (an old one could commit an entry
  that a minority holds);
* an append removes entries only where terms conflict (pysyncobj always cuts the tail behind prev, so that a
  late heartbeat erased acknowledged entries), and commits no further than what it verified (Raft §5.3);
* a reset below what is known to match is stale; one repeated reset is obeyed once; its hint leads
  straight to the commit index (pysyncobj goes back one entry per period);
* a vote counts once for a (term, member); pre-vote and stickiness as in `prevote`;
* a member ahead in term tells so instead of staying silent, or pre-vote would lock it out;
* acknowledgements and votes wait for the journal's sync; appends may leave before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pysyncobj.transport import Transport

from raftkube.errors import InvariantViolation
from raftkube.store.raft import messages as msg
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.membership import Configuration
from raftkube.store.raft.messages import Message
from raftkube.store.raft.outlet import Outlet
from raftkube.store.raft.prevote import NEVER, PreVote
from raftkube.store.raft.private import LEADER, Core, Member
from raftkube.store.raft.progress import Progress
from raftkube.store.raft.settings import RaftSettings

# Of these the sender need not be a member that is known here.
_FROM_ANYONE: Final = frozenset((msg.APPEND, msg.REQUEST_VOTE, msg.PRE_VOTE))


class Guard(Transport):  # type: ignore[misc]
    """pysyncobj's transport. `core` is set right after pysyncobj is built."""

    core: Core

    def __init__(
        self,
        name: str,
        journal: SegmentedJournal,
        outlet: Outlet,
        settings: RaftSettings,
        now: Callable[[], float],
    ) -> None:
        super().__init__(None, None, [])
        self._name = name
        self.votes = False  # this member is a voter
        self.voters: list[str] = []  # the others'
        self._others: dict[str, Member] = {}  # voters and learners
        self._journal, self._outlet, self._now = journal, outlet, now
        self.prevote = PreVote(
            majority=1,
            sticky_s=settings.election_timeout_min_s,
            retry_s=settings.prevote_retry_s,
        )
        self.progress = Progress()
        self._stagger_s = settings.reset_stagger_s
        self._votes: set[tuple[int, str]] = set()
        self._held: list[tuple[str, Message]] = []
        self._commit_notes: dict[str, Message] = {}
        self._quiet_s = settings.heartbeat_s / 2
        self._appended_at: dict[str, float] = {}  # when an append last left to a member
        self._acknowledged: dict[str, tuple[Message, float]] = {}  # what it was last told, and when
        self._empty_append = False  # the append at hand has no entries
        self._reply_override: tuple[int, bool] | None = None  # (next index, reset) of the append at hand
        self._transfer_term = -1  # the term that a leader asked this member to campaign for
        self.on_snapshot_needed: Callable[[str], None] = lambda name: None

    def set_members(self, configuration: Configuration) -> None:
        """These are the members from now on."""
        others = [id_ for id_ in configuration.members if id_ != self._name]
        self._others = {id_: self._others.get(id_) or Member(id_) for id_ in others}
        self.votes = self._name in configuration.voters
        self.voters = [id_ for id_ in others if id_ in configuration.voters]
        self.prevote.majority = configuration.majority
        self.prevote.forget(self.voters)

    def knows(self, name: str) -> bool:
        """Is `name` another member, voter or learner?"""
        return name in self._others

    def _node(self, name: str) -> Member:
        return self._others.get(name) or Member(name)

    # pysyncobj sends.

    def send(self, node: Member, message: dict[str, Any]) -> bool:
        """Translate what pysyncobj sends; hold what depends on the journal until `release`."""
        kind, name = message["type"], node.id
        if kind == "append_entries":
            self._send_append(name, message)
        elif kind == "next_node_idx":
            self._acknowledge(name, message)
        elif kind == "request_vote":
            term, last_index, last_term = message["term"], message["last_log_index"], message["last_log_term"]
            transfer = term == self._transfer_term
            self._held.append((name, [msg.REQUEST_VOTE, term, last_index, last_term, transfer]))
        elif kind == "response_vote":
            self._held.append((name, [msg.VOTE, message["term"]]))
        else:
            raise InvariantViolation(f"pysyncobj sent {kind!r}, which raftkube never uses")
        return True

    def release(self) -> None:
        """The journal is synced: what waited for that leaves."""
        held, self._held = self._held, []
        for name, message in held:
            self._outlet.send(name, message)

    def announce(self) -> None:
        """The commit notes and heartbeats leave that no append overtook. While there are entries to be
        committed, one that follows an append closely may be spared: a later one will say the same."""
        if not self._commit_notes:
            return
        notes, self._commit_notes = self._commit_notes, {}
        now = self._now()
        busy = self.core.commit_index < self._journal.last_index
        for name, message in notes.items():
            if not busy or now - self._appended_at.get(name, -1.0) >= self._quiet_s:
                self._appended_at[name] = now
                self._outlet.send(name, message)

    def _send_append(self, name: str, message: dict[str, Any]) -> None:
        if "serialized" in message:
            self.on_snapshot_needed(name)
            return
        if message["prevLogIdx"] is None or "transmission" in message:
            raise InvariantViolation("pysyncobj built an append that no member may receive")
        entries = message["entries"]
        if self.progress.installing(name):
            entries = []  # a heartbeat is enough until the snapshot has arrived
        wire = [
            msg.APPEND, message["term"], message["commit_index"],
            message["prevLogIdx"], message["prevLogTerm"], entries,
        ]  # fmt: skip
        if entries:
            self._commit_notes.pop(name, None)
            self._appended_at[name] = self._now()
            self._outlet.send(name, wire)
        else:
            self._commit_notes[name] = wire  # an append with entries in the same step says it all

    def _acknowledge(self, name: str, message: dict[str, Any]) -> None:
        """Once the journal is synced. What an append without entries would only repeat is left out, but for
        one answer every other heartbeat at least: the leader counts on hearing from its members."""
        next_index, reset = message["next_node_idx"], message["reset"]
        if self._reply_override is not None:
            next_index, reset = self._reply_override
        answer = [msg.APPENDED, self.core.term, next_index, reset, message["success"]]
        now = self._now()
        if self._empty_append:
            before, at = self._acknowledged.get(name, (None, 0.0))
            if answer == before and now - at < self._quiet_s:
                return
        self._acknowledged[name] = (answer, now)
        self._held.append((name, answer))

    # Members send.

    def receive(self, name: str, message: Message) -> None:
        """One decoded message from `name`, whose identity has been verified.

        It may be a member since an entry that has not arrived here: it leads or campaigns all the same, and
        is answered (Raft thesis §4.1: servers need not know of each other's configuration).
        """
        handler = self._HANDLERS.get(message[0])
        if handler is not None and (name in self._others or message[0] in _FROM_ANYONE):
            handler(self, name, *message[1:])

    def _on_append(
        self, name: str, term: int, commit: int, prev_index: int, prev_term: int, entries: list[Any]
    ) -> None:
        core = self.core
        if not self.follow(name, term):
            return
        first, last = self._journal.first_index, self._journal.last_index
        if prev_index < first:  # what lies up to the base is committed, thus equal everywhere
            known = first - prev_index
            if len(entries) < known:
                self._confirm(name, term, commit, prev_index + len(entries))
                return
            prev_index, prev_term, entries = first, entries[known - 1][2], entries[known:]
        if prev_index > last:
            self._deliver_append(name, term, commit, prev_index, prev_term, [], reply=(last + 1, True))
            return
        if self._journal.term_at(prev_index) != prev_term:
            hint = max(core.commit_index, core.applied_index) + 1
            self._deliver_append(name, term, commit, prev_index, prev_term, [], reply=(hint, True))
            return
        matching = self._matching(entries, last)
        verified = prev_index + matching
        if matching < len(entries) or verified == last:
            at_term = self._journal.term_at(verified) or 0
            self._deliver_append(name, term, commit, verified, at_term, entries[matching:])
        else:
            self._confirm(name, term, commit, verified)

    def follow(self, name: str, term: int) -> bool:
        """Note a message from the leader of `term`; False (and it is told) if its term is over."""
        core = self.core
        if term < core.term:
            self._outlet.send(name, [msg.TERM_AHEAD, core.term])
            return False
        if term == core.term and core.role == LEADER:
            raise InvariantViolation(f"{name} claims to lead term {term}, which this member leads")
        self.prevote.heard_leader(self._now())
        return True

    def _matching(self, entries: list[Any], last: int) -> int:
        """How many of `entries` the log holds already."""
        for position, (_, index, term) in enumerate(entries):
            if index > last or self._journal.term_at(index) != term:
                return position
        return len(entries)

    def _confirm(self, name: str, term: int, commit: int, verified: int) -> None:
        """The log agrees with the leader's up to `verified` and goes on behind it without conflict: it
        stays as it is (Raft §5.3, receiver rule 3), and nothing behind `verified` is committed."""
        last = self._journal.last_index
        last_term = self._journal.term_at(last) or 0
        reply = (verified + 1, False)
        self._deliver_append(name, term, min(commit, verified), last, last_term, [], reply=reply)

    def _deliver_append(
        self,
        name: str,
        term: int,
        commit: int,
        prev_index: int,
        prev_term: int,
        entries: list[Any],
        *,
        reply: tuple[int, bool] | None = None,
    ) -> None:
        self._reply_override, self._empty_append = reply, not entries
        try:
            self._onMessageReceived(
                self._node(name),
                {
                    "type": "append_entries", "term": term, "commit_index": commit,
                    "prevLogIdx": prev_index, "prevLogTerm": prev_term, "entries": entries,
                },
            )  # fmt: skip
        finally:
            self._reply_override, self._empty_append = None, False

    def _on_appended(self, name: str, term: int, next_index: int, reset: bool, success: bool) -> None:
        core = self.core
        if term != core.term or core.role != LEADER:
            self.learn_term(name, term)
            return
        if next_index > self._journal.last_index + 1:
            if success:
                raise InvariantViolation(f"{name} acknowledged entry {next_index - 1}, which does not exist")
            next_index = self._journal.last_index + 1
        if success:
            self.progress.advanced(name)
        elif reset:
            next_index = max(next_index, core.match_index(name) + 1)
            reset = self.progress.obey_reset(name, next_index, self._now())
        self._onMessageReceived(
            self._others[name],
            {"type": "next_node_idx", "next_node_idx": next_index, "reset": reset, "success": success},
        )

    def _on_request_vote(self, name: str, term: int, last_index: int, last_term: int, transfer: bool) -> None:
        core = self.core
        if term < core.term:
            self._outlet.send(name, [msg.TERM_AHEAD, core.term])
        elif transfer or (core.role != LEADER and not self.prevote.hears_leader(self._now())):
            self._onMessageReceived(
                self._node(name),
                {
                    "type": "request_vote", "term": term, "last_log_index": last_index,
                    "last_log_term": last_term,
                },
            )  # fmt: skip

    def _on_vote(self, name: str, term: int) -> None:
        if (term, name) in self._votes or name not in self.voters:
            return  # counted already; or a learner's, which grants votes (the candidate may know it as voter)
        self._votes = {vote for vote in self._votes if vote[0] >= self.core.term} | {(term, name)}
        self._onMessageReceived(self._others[name], {"type": "response_vote", "term": term})

    def _on_pre_vote(self, name: str, number: int, term: int, last_index: int, last_term: int) -> None:
        core, journal = self.core, self._journal
        if term <= core.term:
            self._outlet.send(name, [msg.TERM_AHEAD, core.term])
            return
        ours = (journal.term_at(journal.last_index) or 0, journal.last_index)
        alive = core.role == LEADER or self.prevote.hears_leader(self._now())
        if not alive and (last_term, last_index) >= ours:
            self._outlet.send(name, [msg.PRE_VOTE_OK, number])

    def _on_pre_vote_ok(self, name: str, number: int) -> None:
        if name in self.voters:
            self.prevote.granted(name, number)

    def _on_term_ahead(self, name: str, term: int) -> None:
        self.learn_term(name, term)

    def _on_timeout_now(self, name: str, term: int) -> None:
        """The leader hands over (Raft thesis §3.10): `hurry` acts on it."""
        core = self.core
        if term < core.term:
            self._outlet.send(name, [msg.TERM_AHEAD, core.term])
        elif term == core.term and core.leader_name == name:
            self._transfer_term = term + 1

    def learn_term(self, name: str, term: int) -> None:
        """Adopt a higher term that `name` spoke of (Raft §5.1)."""
        if term > self.core.term:
            self.core.adopt_term(term)

    # Elections.

    def hurry(self) -> None:
        """Before a tick: campaign in it if the leader asked for it and nothing newer came meanwhile."""
        if self._transfer_term == self.core.term + 1 and self.core.role != LEADER and self.votes:
            self.core.election_deadline = NEVER

    def may_campaign(self) -> bool:
        """pysyncobj's election deadline has passed: ask for pre-votes; True once they are granted."""
        now, term = self._now(), self.core.term
        if not self.votes:
            return False
        if self._transfer_term == term + 1 or self.prevote.passed(now, term):
            return True
        number = self.prevote.next_round(now, term)
        if number is not None:
            last = self._journal.last_index
            message = [msg.PRE_VOTE, number, term + 1, last, self._journal.term_at(last) or 0]
            for name in self.voters:
                self._outlet.send(name, message)
        return self.prevote.passed(now, term) if not self.voters else False

    def connection_up(self, name: str) -> None:
        """The connection to `name` can be used: pysyncobj may send to it."""
        self.progress.forget_resets(name)
        self._onNodeConnected(self._node(name))

    def connection_down(self, name: str) -> None:
        """The connection to `name` is gone, or its buffer is full for now."""
        self._onNodeDisconnected(self._node(name))

    def leader_reset(self, name: str) -> None:
        """The connection *from* `name` was reset. If it leads, campaign soon: first the member whose name
        comes first, so that votes do not split, the others in turn if it cannot win."""
        core = self.core
        if core.role == LEADER or core.leader_name != name:
            return
        self.prevote.lost_leader()
        if not self.votes:
            return
        mine = self._name
        rank = sorted([mine, *(other for other in self.voters if other != name)]).index(mine)
        core.election_deadline = min(core.election_deadline, self._now() + (rank + 0.5) * self._stagger_s)

    _HANDLERS: dict[int, Callable[..., None]] = {  # noqa: RUF012 (a table, never changed)
        msg.APPEND: _on_append,
        msg.APPENDED: _on_appended,
        msg.REQUEST_VOTE: _on_request_vote,
        msg.VOTE: _on_vote,
        msg.PRE_VOTE: _on_pre_vote,
        msg.PRE_VOTE_OK: _on_pre_vote_ok,
        msg.TERM_AHEAD: _on_term_ahead,
        msg.TIMEOUT_NOW: _on_timeout_now,
    }
