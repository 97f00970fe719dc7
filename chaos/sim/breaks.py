"""Breaks planted in raftkube's Raft layer, one rule skipped at a time: a fuzz that finds none proves nothing.

They are made from outside, for one run, and never in a member that serves anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple

from raftkube.limits import PEER_FRAME_BYTES_MAX
from raftkube.store.raft import messages as msg
from raftkube.store.raft import snapshot_files
from raftkube.store.raft.guard import Guard
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.peers import Peers
from raftkube.store.raft.private import LEADER
from raftkube.store.raft.proposals import Proposals
from raftkube.store.raft.reads import Reads
from raftkube.store.raft.replica import Replica
from raftkube.wire.frames import FrameReader

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class Break(NamedTuple):
    """Each `(owner, name, wrap)`: `wrap(original)` takes the place of `owner.name`. Where two rules guard the
    same thing, both are skipped."""

    what: str
    patches: tuple[tuple[Any, str, Wrap], ...]


def _no_round(original: Callable[..., Any]) -> Callable[..., Any]:
    def begin_round(self: Reads, view: Any) -> None:
        original(self, view)
        self._confirmed()

    return begin_round


def _any_commit_index(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: original(self)._replace(committed_in_term=self.leading)


def _rounds_from_zero(original: Callable[..., Any]) -> Callable[..., Any]:
    def init(self: Reads, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self._round = 0

    return init


def _truncate_always(original: Callable[..., Any]) -> Callable[..., Any]:
    def on_append(
        self: Guard, name: str, term: int, commit: int, prev_index: int, prev_term: int, entries: list[Any]
    ) -> None:
        if prev_index < self._journal.first_index:
            original(self, name, term, commit, prev_index, prev_term, entries)
        elif self.follow(name, term):
            self._deliver_append(name, term, commit, prev_index, prev_term, entries)

    return on_append


def _commit_unverified(original: Callable[..., Any]) -> Callable[..., Any]:
    def confirm(self: Guard, name: str, term: int, commit: int, verified: int) -> None:
        last = self._journal.last_index
        reply = (verified + 1, False)
        last_term = self._journal.term_at(last) or 0
        self._deliver_append(name, term, commit, last, last_term, [], reply=reply)

    return confirm


def _vouch_for_all(original: Callable[..., Any]) -> Callable[..., Any]:
    def confirm(self: Guard, name: str, term: int, commit: int, verified: int) -> None:
        last = self._journal.last_index
        last_term = self._journal.term_at(last) or 0
        self._deliver_append(name, term, min(commit, verified), last, last_term, [])

    return confirm


def _any_term_acknowledges(original: Callable[..., Any]) -> Callable[..., Any]:
    def on_appended(self: Guard, name: str, term: int, next_index: int, reset: bool, success: bool) -> None:
        if self.core.role == LEADER:
            term, next_index = self.core.term, min(next_index, self._journal.last_index + 1)
        original(self, name, term, next_index, reset, success)

    return on_appended


def _send_before_sync(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(self: Guard, node: Any, message: dict[str, Any]) -> bool:
        sent = bool(original(self, node, message))
        self.release()
        return sent

    return send


def _vote_in_memory(original: Callable[..., Any]) -> Callable[..., Any]:
    def set_current_term(self: SegmentedJournal, term: int, voted_for: str | None) -> None:
        self._term, self._vote = term, voted_for

    return set_current_term


def _count_every_vote(original: Callable[..., Any]) -> Callable[..., Any]:
    def on_vote(self: Guard, name: str, term: int) -> None:
        for _ in range(2):
            self._onMessageReceived(self._others[name], {"type": "response_vote", "term": term})

    return on_vote


def _vote_for_anyone(original: Callable[..., Any]) -> Callable[..., Any]:
    def on_request_vote(
        self: Guard, name: str, term: int, last_index: int, last_term: int, transfer: bool
    ) -> None:
        original(self, name, term, 1 << 40, 1 << 40, transfer)

    return on_request_vote


def _campaign_at_once(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: True


def _pre_vote_for_anyone(original: Callable[..., Any]) -> Callable[..., Any]:
    def on_pre_vote(self: Guard, name: str, number: int, term: int, last_index: int, last_term: int) -> None:
        original(self, name, number, term, 1 << 40, 1 << 40)

    return on_pre_vote


def _hear_older_connections(original: Callable[..., Any]) -> Callable[..., Any]:
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


def _success_for_what_was_replaced(original: Callable[..., Any]) -> Callable[..., Any]:
    def step_down(self: Proposals, leader: str | None) -> None:
        for index, batch in self._in_flight.items():
            for group in batch.groups:
                group.waiter.resolve([(index, 0)] * len(group.packed))
        original(self, leader)

    return step_down


def _no_sync(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, file: None


def _snapshot_unsynced(original: Callable[..., Any]) -> Callable[..., Any]:
    def publish(disk: Any, file: Any, temporary: str, snapshot: Any) -> str:
        file.sync = lambda: None
        return str(original(disk, file, temporary, snapshot))

    return publish


def _forget_the_last(original: Callable[..., Any]) -> Callable[..., Any]:
    def adopt(self: SegmentedJournal, recovered: Any) -> None:
        if len(recovered.entries) > 2:
            del recovered.entries[-1:]
        original(self, recovered)

    return adopt


_OLDER: Final = (Peers, "_listen_to", _hear_older_connections)
_PRE_VOTE: Final = (Guard, "_on_pre_vote", _pre_vote_for_anyone)
_CAMPAIGN: Final = (Guard, "may_campaign", _campaign_at_once)

BREAKS: Final[dict[str, Break]] = {
    "read-without-round": Break(
        "reads are not confirmed by a majority", ((Reads, "_begin_round", _no_round),)
    ),
    "read-before-first-commit": Break(
        "a new leader serves reads before it committed in its term", ((Replica, "_view", _any_commit_index),)
    ),
    "rounds-from-zero": Break(
        "read rounds of a new life have the numbers of the old one", ((Reads, "__init__", _rounds_from_zero),)
    ),
    "truncate-always": Break(
        "an append cuts the tail behind it, conflict or not; older connections are heard",
        ((Guard, "_on_append", _truncate_always), _OLDER),
    ),
    "commit-unverified": Break(
        "a commit index beyond what was verified is taken; older connections are heard",
        ((Guard, "_confirm", _commit_unverified), _OLDER),
    ),
    "vouch-for-all": Break(
        "a follower acknowledges more than was asked", ((Guard, "_confirm", _vouch_for_all), _OLDER)
    ),
    "any-term-acknowledges": Break(
        "acknowledgements of other terms count; older connections are heard",
        ((Guard, "_on_appended", _any_term_acknowledges), _OLDER),
    ),
    "send-before-sync": Break(
        "acknowledgements and votes leave before the sync", ((Guard, "send", _send_before_sync),)
    ),
    "vote-in-memory": Break(
        "term and vote are not written; there is no pre-vote",
        ((SegmentedJournal, "setCurrentTerm", _vote_in_memory), _CAMPAIGN),
    ),
    "count-every-vote": Break(
        "a vote counts twice; there is no pre-vote", ((Guard, "_on_vote", _count_every_vote), _CAMPAIGN)
    ),
    "vote-for-anyone": Break(
        "votes and pre-votes go to candidates with older logs",
        ((Guard, "_on_request_vote", _vote_for_anyone), _PRE_VOTE),
    ),
    "success-at-step-down": Break(
        "what is in flight when leadership ends is called a success",
        ((Proposals, "step_down", _success_for_what_was_replaced),),
    ),
    "no-sync": Break("the journal is never synced", ((SegmentedJournal, "_sync_file", _no_sync),)),
    "snapshot-unsynced": Break(
        "snapshots are renamed before a sync", ((snapshot_files, "_publish", _snapshot_unsynced),)
    ),
    "forget-the-last": Break(
        "recovery drops the last entry", ((SegmentedJournal, "_adopt", _forget_the_last),)
    ),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """The break is there while the context lasts; None: nothing is broken."""
    with ExitStack() as stack:
        for owner, attribute, wrap in BREAKS[name].patches if name else ():
            stack.enter_context(_patched(owner, attribute, wrap))
        yield


@contextmanager
def _patched(owner: Any, attribute: str, wrap: Wrap) -> Iterator[None]:
    original = getattr(owner, attribute)
    broken = wrap(original)
    handlers = {kind: handler for kind, handler in Guard._HANDLERS.items() if handler is original}
    setattr(owner, attribute, broken)
    Guard._HANDLERS.update(dict.fromkeys(handlers, broken))
    try:
        yield
    finally:
        setattr(owner, attribute, original)
        Guard._HANDLERS.update(handlers)
