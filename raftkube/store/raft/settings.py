"""Times and sizes of one Raft member, and what it says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from raftkube.errors import ConfigError
from raftkube.types import LogIndex, Term

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Defaults suit three members on one machine or in one data centre.

    A follower campaigns after `election_timeout_min_s`..`max_s` without its leader, or after
    `reset_stagger_s` times its rank when it sees the leader's connection reset.
    """

    heartbeat_s: float = 0.1
    election_timeout_min_s: float = 0.6
    election_timeout_max_s: float = 1.1
    prevote_retry_s: float = 0.1
    reset_stagger_s: float = 0.04
    keepalive_s: float = 1.0
    keepalive_timeout_s: float = 3.0
    reconnect_min_s: float = 0.05
    reconnect_max_s: float = 0.5
    proposal_timeout_s: float = 5.0
    read_timeout_s: float = 5.0
    queue_operations_max: int = 20_000
    queue_bytes_max: int = 64 * _MIB
    entries_in_flight_max: int = 4
    send_buffer_pause_bytes: int = 8 * _MIB  # what a step sends to one follower far behind
    segment_bytes: int = 16 * _MIB
    snapshot_log_bytes: int = 64 * _MIB
    snapshot_log_entries: int = 50_000
    retain_entries: int = 5_000
    install_log_bytes_max: int = 256 * _MIB  # kept beyond that for a follower that installs a snapshot
    snapshot_chunk_bytes: int = _MIB
    cluster_token: str = "raftkube"  # tells clusters apart whose initial members are the same
    mutant: str | None = None
    slow_apply_s: float = 0.1  # etcd's thresholds of its warnings
    slow_fsync_s: float = 1.0
    slow_read_s: float = 0.5

    def __post_init__(self) -> None:
        if not 3 * self.heartbeat_s < self.election_timeout_min_s < self.election_timeout_max_s:
            raise ConfigError(
                "election_timeout_min_s must exceed three heartbeats and stay below election_timeout_max_s"
            )


class RaftStatus(NamedTuple):
    """`role` is "leader", "candidate" or "follower"; `leader` is the last one known, or None. `members`:
    the ids of voters and learners; `name`: this one's id."""

    name: str
    role: str
    term: Term
    leader: str | None
    commit_index: LogIndex
    applied_index: LogIndex
    log_first: LogIndex
    log_last: LogIndex
    snapshot_index: LogIndex
    members: tuple[str, ...]
    learners: tuple[str, ...]
    fsyncs: int
    fsync_s_total: float
    journal_bytes: int
    failed: str | None
    cluster_version: int = 1


class RoleChange(NamedTuple):
    """What this member is. `ready`: a leader whose own term's first entry is applied here, so that its
    state machine holds all that was ever committed."""

    role: str
    term: Term
    leader: str | None
    ready: bool
