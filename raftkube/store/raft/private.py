"""Every private name of pysyncobj 0.3.17 that raftkube touches; nothing else may.

pysyncobj reads its clock, its random source and its journal factory from module globals. Several members
in one process therefore each have a `World`, and every call into pysyncobj is made inside `with world:`;
outside of any, pysyncobj sees its own originals. Within one step time stands still.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import pysyncobj.syncobj as _syncobj
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.version import VERSION

from raftkube.rng import Rng

NO_OP: Final = b"\x01"  # an entry of pysyncobj's own; the first of each term
REGULAR: Final = b"\x00"  # one of ours; what follows belongs to the state machine
ROLES: Final = ("follower", "candidate", "leader")
FOLLOWER: Final = 0
CANDIDATE: Final = 1
LEADER: Final = 2

_APPEND_BYTES: Final = 1024 * 1024  # of commands in one append, if it has more than one
_APPEND_ENTRIES_MAX: Final = 4_096

_PINNED: Final = "0.3.17"
_GLOBALS: Final = ("monotonicTime", "random", "createJournal", "PIPE_NOTIFIER_ENABLED")
_METHODS: Final = (
    "_SyncObj__connectedToAnyone", "_SyncObj__doApplyCommand", "_SyncObj__tryLogCompaction",
    "_SyncObj__loadDumpFile", "_SyncObj__setCurrentTerm", "_SyncObj__setState", "isNodeConnected",
    "otherNodes", "_SyncObj__getEntries",
    "_checkCommandsToApply", "_applyCommand", "_onTick", "doTick",
)  # fmt: skip
_FIELDS: Final = (
    "_SyncObj__raftState", "_SyncObj__raftCurrentTerm", "_SyncObj__raftLeader",
    "_SyncObj__raftElectionDeadline", "_SyncObj__raftCommitIndex", "_SyncObj__raftLastApplied",
    "_SyncObj__raftMatchIndex", "_SyncObj__raftNextIndex", "_SyncObj__lastResponseTime",
    "_SyncObj__otherNodes", "_SyncObj__readonlyNodes", "_SyncObj__raftLog", "_SyncObj__serializer",
    "_SyncObj__newAppendEntriesTime", "_poller",
)  # fmt: skip


def _check_names() -> None:
    """A bump of pysyncobj must be a decision: it reruns the simulation and edits this module."""
    fields = SyncObj.__init__.__code__.co_names
    missing = [name for name in _GLOBALS if not hasattr(_syncobj, name)]
    missing += [name for name in _METHODS if not hasattr(SyncObj, name)]
    missing += [name for name in _FIELDS if name not in fields]
    if _PINNED != VERSION or missing:
        raise ImportError(
            f"raftkube needs pysyncobj {_PINNED}; found {VERSION}, without {missing or 'nothing'}"
        )


_check_names()


class World:
    """One member's time, chance and journal, put in pysyncobj's globals' place while it runs."""

    __slots__ = ("_outer", "journal", "now", "rng")

    def __init__(self, rng: Rng) -> None:
        self.now = 0.0
        self.rng = rng
        self.journal: Any = None
        self._outer: World | None = None

    def __enter__(self) -> World:
        global _world
        self._outer, _world = _world, self
        return self

    def __exit__(self, *_: object) -> None:
        global _world
        _world, self._outer = self._outer, None


_world: World | None = None
_original_monotonic = _syncobj.monotonicTime
_original_random = _syncobj.random
_original_create_journal = _syncobj.createJournal


def _monotonic() -> float:
    return _original_monotonic() if _world is None else _world.now


class _Chance:
    """Stands where pysyncobj expects the module `random`."""

    @staticmethod
    def random() -> float:
        return _original_random.random() if _world is None else _world.rng.random()


def _create_journal(path: Any) -> Any:
    return _original_create_journal(path) if _world is None else _world.journal


_syncobj.monotonicTime = _monotonic
_syncobj.random = _Chance
_syncobj.createJournal = _create_journal
_syncobj.PIPE_NOTIFIER_ENABLED = False


class Member(Node):  # type: ignore[misc]
    """A member by name. Its hash does not depend on PYTHONHASHSEED, for pysyncobj iterates over sets."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._order = int.from_bytes(name.encode()[-7:], "big")

    def __hash__(self) -> int:
        return self._order

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and bool(self.id == other.id)


class _NullPoller:
    """Messages arrive by trio, not by a poller."""

    def poll(self, timeout_s: float) -> None:
        pass

    def subscribe(self, *_: object) -> None:
        pass

    def unsubscribe(self, *_: object) -> None:
        pass


class _SnapshotElsewhere:
    """pysyncobj's serializer, which only says that there is nothing to send: snapshots are ours.

    The empty last part makes the leader go on behind the snapshot; the guard sees the message and starts
    an install of our own (an answer "none yet" would make it ask in a loop).
    """

    def getTransmissionData(self, node: Any) -> tuple[bytes, bool, bool]:
        return b"", True, True

    def cancelTransmisstion(self, node: Any) -> None:
        pass

    def setTransmissionData(self, data: Any) -> bool:
        return False


class CoreHooks(Protocol):
    """What pysyncobj asks of its surroundings."""

    def may_campaign(self) -> bool:
        """The election deadline has passed: may the term be raised? (the pre-vote)"""
        ...

    def apply_entry(self, command: bytes) -> None:
        """Apply the entry after the last applied one; never raises but to stop the node."""
        ...

    def append_proposals(self, append: Any) -> None:
        """A leader may append now: call `append(command)`, once for each new entry."""
        ...


class Core(SyncObj):  # type: ignore[misc]
    """pysyncobj's decisions, with plain names for its state. Every call is made inside its World."""

    _SyncObj__otherNodes: set[Member]
    _SyncObj__readonlyNodes: set[Member]
    _SyncObj__newAppendEntriesTime = 0.0  # its __init__ looks at every property before it sets this

    def __init__(
        self, hooks: CoreHooks, name: str, others: list[str], conf: SyncObjConf, transport: Any
    ) -> None:
        self._hooks = hooks
        super().__init__(Member(name), [Member(other) for other in others], conf, transport=transport)
        self._poller = _NullPoller()
        self._SyncObj__serializer = _SnapshotElsewhere()

    # What pysyncobj calls by private names; they resolve through the class, so these come first.

    def _SyncObj__connectedToAnyone(self) -> bool:
        return self._hooks.may_campaign()

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        self._hooks.apply_entry(command)

    def _SyncObj__tryLogCompaction(self) -> None:
        pass

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        raise AssertionError("snapshots are loaded by raftkube alone")

    def _SyncObj__getEntries(
        self, first: int, count: int | None = None, bytes_max: int | None = None
    ) -> list[tuple[bytes, int, int]]:
        """What is sent to a follower far behind (`bytes_max` is given) leaves in small appends, for the
        follower applies each in one step."""
        if bytes_max is None:
            return list(super()._SyncObj__getEntries(first, count))
        return list(super()._SyncObj__getEntries(first, _APPEND_ENTRIES_MAX, _APPEND_BYTES))

    def _checkCommandsToApply(self) -> None:
        if self._SyncObj__raftState == LEADER:
            self._hooks.append_proposals(self._append)

    def _append(self, command: bytes) -> None:
        self._applyCommand(command, None)
        super()._checkCommandsToApply()

    # Plain names.

    @property
    def role(self) -> int:
        return int(self._SyncObj__raftState)

    @property
    def term(self) -> int:
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def commit_index(self) -> int:
        return int(self._SyncObj__raftCommitIndex)

    @property
    def applied_index(self) -> int:
        return int(self._SyncObj__raftLastApplied)

    @property
    def leader_name(self) -> str | None:
        leader = self._SyncObj__raftLeader
        return None if leader is None else leader.id

    @property
    def election_deadline(self) -> float:
        return self._SyncObj__raftElectionDeadline

    @election_deadline.setter
    def election_deadline(self, at: float) -> None:
        self._SyncObj__raftElectionDeadline = at

    @property
    def next_heartbeat(self) -> float:
        return self._SyncObj__newAppendEntriesTime

    def match_index(self, name: str) -> int:
        """What `name` is known to hold, 0 before it answered this leader."""
        return int(self._SyncObj__raftMatchIndex.get(Member(name), 0))

    def last_response(self, name: str) -> float:
        """When `name` last answered this leader; its election counts as an answer."""
        return float(self._SyncObj__lastResponseTime.get(Member(name), 0.0))

    def set_members(self, voters: list[str], learners: list[str]) -> None:
        """From now on these vote and these learn (this member may be among them). Learners are pysyncobj's
        read-only nodes: it sends them everything, and counts them for no commit, election or quorum."""
        voting = {Member(name) for name in voters} - {self.selfNode}
        learning = {Member(name) for name in learners} - {self.selfNode}
        if self.role == CANDIDATE and voting != self._SyncObj__otherNodes:
            self._SyncObj__setState(FOLLOWER)  # the votes that it has are other voters'
        before = self._SyncObj__otherNodes | self._SyncObj__readonlyNodes
        for gone in before - voting - learning:
            self._onNodeGone(gone)
        for added in (voting | learning) - before:
            self._SyncObj__raftNextIndex[added] = self._SyncObj__raftLog[-1][1] + 1
            self._SyncObj__raftMatchIndex[added] = 0
            self._SyncObj__lastResponseTime[added] = _monotonic()
        self._SyncObj__otherNodes, self._SyncObj__readonlyNodes = voting, learning

    def _onNodeGone(self, node: Member) -> None:
        for known in (
            self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex, self._SyncObj__lastResponseTime,
        ):  # fmt: skip
            known.pop(node, None)

    def voters(self) -> list[str]:
        """The other members that vote."""
        return [node.id for node in self.otherNodes]

    def is_connected(self, name: str) -> bool:
        """Can `name` be sent to?"""
        return bool(self.isNodeConnected(Member(name)))

    def adopt_term(self, term: int) -> None:
        """Become a follower of `term`, which is higher than ours (Raft paper §5.1)."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self._SyncObj__raftLeader = None

    def jump_to(self, index: int) -> None:
        """The state machine holds a snapshot up to `index`."""
        self._SyncObj__raftLastApplied = index
        self._SyncObj__raftCommitIndex = max(self.commit_index, index)
