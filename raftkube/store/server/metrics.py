"""What Prometheus reads of one member, under etcd's names where what they say is true here.

`METRICS` is the whole list; each row says where its value stands, and values are read when somebody asks.
A registry belongs to one member, so that several in one process do not mix. Types and help texts of
etcd's names are etcd 3.5's (some of its totals are gauges).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from raftkube.store.raft.counters import Histogram, RaftCounters
from raftkube.store.raft.settings import RaftStatus
from raftkube.store.server.activity import Activity
from raftkube.store.server.health import alarms_on
from raftkube.store.server.hub import HubFigures
from raftkube.store.server.runtime import Runtime
from raftkube.wire.store import (
    DeleteRangeResult,
    LeaseExpire,
    LeaseGrant,
    LeaseKeepAlive,
    PutResult,
    TxnResult,
)

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


class Sources(NamedTuple):
    """All that metrics are read from. `raft` and `counters` are None while the member recovers."""

    status: Mapping[str, Any]
    raft: RaftStatus | None
    counters: RaftCounters | None
    activity: Activity
    hub: HubFigures
    runtime: Runtime
    keys: int
    events_sent: int
    watches_ended_slow: int


Value = float | str | Histogram | Mapping[str, float] | None


class Row(NamedTuple):
    """One metric. `read` gives its value, by label if it has one; a text is the label of a 1; None: it is
    not known now, and not shown."""

    name: str
    kind: str
    label: str
    help: str
    read: Callable[[Sources], Value]


def _raft(field: str) -> Callable[[Sources], Value]:
    return lambda s: None if s.raft is None else getattr(s.raft, field)


def _count(field: str) -> Callable[[Sources], Value]:
    return lambda s: None if s.counters is None else getattr(s.counters, field)


def _status(field: str) -> Callable[[Sources], Value]:
    return lambda s: s.status.get(field)


_SERVER: Final = (
    Row("etcd_cluster_version", "gauge", "cluster_version",
        "Which version is running. 1 for 'cluster_version' label with current cluster version",
        lambda s: str(s.status["cluster_version"])),
    Row("etcd_server_has_leader", "gauge", "", "Whether or not a leader exists. 1 is existence, 0 is not.",
        lambda s: bool(s.status["leader"])),
    Row("etcd_server_is_leader", "gauge", "", "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        lambda s: s.status["role"] == "leader"),
    Row("etcd_server_is_learner", "gauge", "",
        "Whether or not this member is a learner. 1 if is, 0 otherwise.",
        lambda s: bool(s.status.get("is_learner", False))),
    Row("etcd_server_leader_changes_seen_total", "counter", "", "The number of leader changes seen.",
        _count("leader_changes")),
    Row("etcd_server_proposals_committed_total", "gauge", "",
        "The total number of consensus proposals committed.", _status("commit_index")),
    Row("etcd_server_proposals_applied_total", "gauge", "",
        "The total number of consensus proposals applied.", _status("applied_index")),
    Row("etcd_server_proposals_pending", "gauge", "", "The current number of pending proposals to commit.",
        _count("proposals_pending")),
    Row("etcd_server_proposals_failed_total", "counter", "", "The total number of failed proposals seen.",
        _count("proposals_failed")),
    Row("etcd_server_slow_apply_total", "counter", "",
        "The total number of slow apply requests (likely overloaded from slow disk).",
        _count("slow_applies")),
    Row("etcd_server_slow_read_indexes_total", "counter", "",
        "The total number of pending read indexes not in sync with leader's or timed out read index "
        "requests.",
        _count("reads_slow")),
    Row("etcd_server_read_indexes_failed_total", "counter", "",
        "The total number of failed read indexes seen.", _count("reads_failed")),
    Row("etcd_server_heartbeat_send_failures_total", "counter", "",
        "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
        _count("late_heartbeats")),
    Row("etcd_server_quota_backend_bytes", "gauge", "", "Current backend storage quota size in bytes.",
        _status("quota_bytes")),
    Row("etcd_server_id", "gauge", "server_id",
        "Server or member ID. 1 for 'server_id' label with current ID.",
        lambda s: str(s.status.get("id") or s.status["name"])),
    Row("etcd_server_version", "gauge", "server_version",
        "Which version is running. 1 for 'server_version' label with current version.",
        lambda s: str(s.status["version"])),
)  # fmt: skip

_DISK: Final = (
    Row("etcd_disk_wal_fsync_duration_seconds", "histogram", "",
        "The latency distributions of fsync called by WAL.", _count("fsync_s")),
    Row("etcd_disk_wal_write_bytes_total", "gauge", "", "Total number of bytes written in WAL.",
        _count("written_bytes")),
    Row("etcd_debugging_snap_save_total_duration_seconds", "histogram", "",
        "The total latency distributions of save called by snapshot.", _count("snapshot_save_s")),
)  # fmt: skip

_MVCC: Final = (
    Row("etcd_mvcc_db_total_size_in_bytes", "gauge", "",
        "Total size of the underlying database physically allocated in bytes.", _status("db_size")),
    Row("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", "",
        "Total size of the underlying database logically in use in bytes.", _status("db_size_in_use")),
    Row("etcd_mvcc_put_total", "counter", "", "Total number of puts seen by this member.",
        lambda s: s.activity.applied[PutResult]),
    Row("etcd_mvcc_delete_total", "counter", "", "Total number of deletes seen by this member.",
        lambda s: s.activity.applied[DeleteRangeResult]),
    Row("etcd_mvcc_txn_total", "counter", "", "Total number of txns seen by this member.",
        lambda s: s.activity.applied[TxnResult]),
    Row("etcd_mvcc_range_total", "counter", "", "Total number of ranges seen by this member.",
        lambda s: s.activity.ranges),
    Row("etcd_debugging_mvcc_keys_total", "gauge", "", "Total number of keys.", lambda s: s.keys),
    Row("etcd_debugging_mvcc_current_revision", "gauge", "", "The current revision of store.",
        _status("revision")),
    Row("etcd_debugging_mvcc_compact_revision", "gauge", "", "The revision of the last compaction in store.",
        _status("compact_revision")),
    Row("etcd_debugging_mvcc_watch_stream_total", "gauge", "", "Total number of watch streams.",
        lambda s: s.hub.streams),
    Row("etcd_debugging_mvcc_watcher_total", "gauge", "", "Total number of watchers.",
        lambda s: s.activity.watchers),
    Row("etcd_debugging_mvcc_slow_watcher_total", "gauge", "", "Total number of unsynced slow watchers.",
        lambda s: s.hub.slow + s.activity.catching_up),
    Row("etcd_debugging_mvcc_events_total", "counter", "", "Total number of events sent by this member.",
        lambda s: s.events_sent),
    Row("etcd_debugging_mvcc_pending_events_total", "gauge", "", "Total number of pending events to be sent.",
        lambda s: s.hub.pending_events),
    Row("etcd_debugging_lease_granted_total", "counter", "", "The total number of granted leases.",
        lambda s: s.activity.leases[LeaseGrant]),
    Row("etcd_debugging_lease_revoked_total", "counter", "", "The total number of revoked leases.",
        lambda s: s.activity.leases_revoked),
    Row("etcd_debugging_lease_renewed_total", "counter", "",
        "The number of renewed leases seen by the leader.", lambda s: s.activity.leases[LeaseKeepAlive]),
    Row("etcd_debugging_lease_ttl_total", "histogram", "", "Bucketed histogram of lease TTLs.",
        lambda s: s.activity.lease_ttl_s),
    Row("etcd_debugging_server_lease_expired_total", "counter", "", "The total number of expired leases.",
        lambda s: s.activity.leases[LeaseExpire]),
)  # fmt: skip

_NETWORK: Final = (
    Row("etcd_network_peer_sent_bytes_total", "counter", "To", "The total number of bytes sent to peers.",
        _count("peers_sent_bytes")),
    Row("etcd_network_peer_received_bytes_total", "counter", "From",
        "The total number of bytes received from peers.", _count("peers_received_bytes")),
    Row("etcd_network_peer_sent_failures_total", "counter", "To",
        "The total number of send failures from peers.", _count("peers_send_failures")),
    Row("raftkube_client_connections", "gauge", "", "Connections of clients that are served now.",
        lambda s: s.activity.connections),
    Row("raftkube_client_refused_total", "counter", "",
        "Connections refused because of the role in their certificate.",
        lambda s: s.activity.refused_connections),
    Row("raftkube_client_requests_total", "counter", "method", "Requests of clients.",
        lambda s: s.activity.requests),
    Row("raftkube_client_received_bytes_total", "counter", "", "Bytes received from clients.",
        lambda s: s.activity.received_bytes),
    Row("raftkube_client_sent_bytes_total", "counter", "", "Bytes sent to clients, events included.",
        lambda s: s.activity.sent_bytes),
)  # fmt: skip

_OWN: Final = (
    Row("raftkube_alarm", "gauge", "alarm", "Alarms that are on.",
        lambda s: dict.fromkeys(alarms_on(s.status), 1)),
    Row("raftkube_member_failed", "gauge", "", "1 if this member says that something is wrong with it.",
        lambda s: bool(s.status["errors"])),
    Row("raftkube_term", "gauge", "", "The Raft term.", _status("term")),
    Row("raftkube_entry_operations", "histogram", "",
        "Operations in each log entry that this member appended as leader.", _count("entry_operations")),
    Row("raftkube_proposals_queued_bytes", "gauge", "", "Bytes of the operations that wait for a log entry.",
        _count("proposals_queued_bytes")),
    Row("raftkube_read_rounds_total", "counter", "",
        "Rounds, or requests to the leader, that confirmed linearizable reads.", _count("read_rounds")),
    Row("raftkube_journal_live_bytes", "gauge", "", "Bytes of the commands that the log holds.",
        _raft("journal_bytes")),
    Row("raftkube_log_first_index", "gauge", "", "The oldest entry that the log holds.", _raft("log_first")),
    Row("raftkube_log_last_index", "gauge", "", "The newest entry that the log holds.", _raft("log_last")),
    Row("raftkube_snapshot_index", "gauge", "", "The last entry in the newest snapshot; 0 for none.",
        _raft("snapshot_index")),
    Row("raftkube_snapshots_installed_total", "counter", "",
        "Snapshots that came from a leader and were installed.",
        _count("snapshots_installed")),
    Row("raftkube_watch_groups", "gauge", "", "Selections of events that watchers share.",
        lambda s: s.hub.groups),
    Row("raftkube_hub_backlog_bytes", "gauge", "",
        "How far the slowest watcher is behind, in bytes of events of all keys.",
        lambda s: s.hub.backlog_bytes),
    Row("raftkube_watches_ended_slow_total", "counter", "", "Watches ended because they fell too far behind.",
        lambda s: s.watches_ended_slow),
    Row("raftkube_health_checks_total", "counter", "result", "Answers to health checks.",
        lambda s: s.activity.health_checks),
    Row("raftkube_event_loop_lag_seconds", "histogram", "", "How late the event loop ran a timer.",
        lambda s: s.runtime.loop_lag_s),
    Row("raftkube_gc_pause_seconds", "histogram", "", "Pauses of the process for garbage collection.",
        lambda s: s.runtime.gc_pause_s),
)  # fmt: skip

METRICS: Final = (*_SERVER, *_DISK, *_MVCC, *_NETWORK, *_OWN)


class Metrics:
    """The metrics of one member, with those of its process."""

    def __init__(self, read: Callable[[], Sources]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_MemberCollector(read))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class _MemberCollector(Collector):
    def __init__(self, read: Callable[[], Sources]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        sources = self._read()
        for row in METRICS:
            value = row.read(sources)
            if value is not None:
                yield _family(row, value)


def _family(row: Row, value: Value) -> Metric:
    if isinstance(value, Histogram):
        buckets = [(_bound(bound), count) for bound, count in value.cumulative()]
        return HistogramMetricFamily(row.name, row.help, buckets=buckets, sum_value=value.sum)
    labels = [row.label] if row.label else []
    make = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family: Metric = make(row.name, row.help, labels=labels)
    if isinstance(value, str):
        value = {value: 1}
    values = {"": value} if not isinstance(value, Mapping) else value
    for name, number in sorted(values.items()):
        family.add_metric([name] if row.label else [], number)  # type: ignore[attr-defined]
    return family


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(bound)
