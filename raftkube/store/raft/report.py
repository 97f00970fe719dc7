"""What a member says of its own work, put together when somebody asks."""

from __future__ import annotations

from raftkube.store.raft.counters import RaftCounters
from raftkube.store.raft.peers import Peers
from raftkube.store.raft.private import ROLES
from raftkube.store.raft.replica import Replica
from raftkube.store.raft.settings import RaftStatus, RoleChange
from raftkube.types import LogIndex, Term


def status_of(replica: Replica, role: RoleChange, failure: Exception | None) -> RaftStatus:
    """Where it stands; `role` is what it was last, also once `failure` has ended it."""
    core, journal, configuration = replica.core, replica.journal, replica.configuration
    return RaftStatus(
        name=replica.name,
        role=role.role if failure else ROLES[core.role],
        term=Term(core.term),
        leader=None if failure else replica.leader,
        commit_index=LogIndex(core.commit_index),
        applied_index=LogIndex(core.applied_index),
        log_first=LogIndex(journal.first_index),
        log_last=LogIndex(journal.last_index),
        snapshot_index=LogIndex(replica.snapshots.index),
        members=tuple(configuration.members),
        learners=tuple(sorted(configuration.learners)),
        fsyncs=journal.fsyncs,
        fsync_s_total=journal.fsync_s_total,
        journal_bytes=journal.live_bytes,
        failed=None if failure is None else str(failure),
        cluster_version=replica.committed_configuration.cluster_version,
    )


def counters_of(replica: Replica, peers: Peers, *, leader_changes: int) -> RaftCounters:
    """What the member has counted since its start."""
    proposals, reads, journal = replica.proposals, replica.reads, replica.journal
    return RaftCounters(
        leader_changes=leader_changes,
        late_heartbeats=replica.late_heartbeats,
        proposals_failed=proposals.failed,
        proposals_pending=proposals.pending,
        proposals_queued_bytes=proposals.queued_bytes,
        entry_operations=proposals.entry_operations,
        slow_applies=replica.slow_applies.count,
        read_rounds=reads.rounds,
        reads_failed=reads.failed,
        reads_slow=reads.slow.count,
        fsync_s=journal.fsync_s,
        written_bytes=journal.written_bytes,
        snapshot_save_s=replica.snapshots.save_s,
        snapshots_installed=replica.snapshots.installed,
        peers_sent_bytes=peers.sent_bytes,
        peers_received_bytes=peers.received_bytes,
        peers_send_failures=peers.send_failures,
    )
