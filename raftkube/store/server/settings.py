"""Every number of the server that one may want to change, in one object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Units are the last word of each name.

    flush_window_max_s: under load events are gathered for at most this long before they are sent.
    watch_lag_bytes_max: events that a watcher may be behind, of all keys, before its watch is ended;
        it bounds the memory that the hub keeps for slow watchers.
    progress_interval_s: how often watches that asked for progress marks get one unasked.
    requests_in_flight_max: per connection; beyond it the connection is not read.
    history_s, history_revisions_max: revisions older than the first, or beyond the second, are compacted
        by the leader. 0 switches either bound off.
    quota_bytes: of what the store holds (StateMachine.db_size_in_use); what would exceed it is refused and
        raises the alarm NOSPACE. 0: none.
    sessions_max: of numbered writes; beyond it the leader closes those that were not used for longest.
    pause_s: a lease clock that wakes this late was stopped, and does not count that time.
    health_timeout_s: how long a health check waits for a linearizable read.
    loop_lag_warn_s: an event loop that turns this late is worth a warning.
    """

    flush_window_max_s: float = 0.020
    watch_lag_bytes_max: int = 64 * 1024 * 1024
    progress_interval_s: float = 5.0
    requests_in_flight_max: int = 4_096
    history_s: float = 300.0
    history_revisions_max: int = 100_000
    compaction_interval_s: float = 1.0
    quota_bytes: int = 2 * 1024 * 1024 * 1024
    sessions_max: int = 1_024
    pause_s: float = 0.25
    health_timeout_s: float = 2.0
    loop_lag_warn_s: float = 0.5
