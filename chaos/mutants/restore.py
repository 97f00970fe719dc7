"""Mutants of snapshots as states: what a member lacks after it has restored one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chaos.mutants.mutant import Mutant
from raftkube.store.core import machine, restore
from raftkube.store.core.history import EventHistory
from raftkube.store.core.keyspace import Keyspace
from raftkube.store.core.leases import LeaseTable
from raftkube.store.core.machine import StateMachine
from raftkube.store.core.sessions import SessionTable
from raftkube.store.server.hub import Hub

Function = Callable[..., Any]


def _without_results(original: Function) -> Function:
    return lambda self, copy: original(self, copy._replace(results=()))


def _without_sessions(original: Function) -> Function:
    return lambda self, copy: None


def _without_leases(original: Function) -> Function:
    def add(self: LeaseTable, lease: int, ttl_s: int, renewal: int | None = None) -> Any:
        return original(self, lease, ttl_s, renewal) if renewal is None else None

    return add


def _renewed_never(original: Function) -> Function:
    def add(self: LeaseTable, lease: int, ttl_s: int, renewal: int | None = None) -> Any:
        return original(self, lease, ttl_s, renewal and 0)

    return add


def _without_lease_keys(original: Function) -> Function:
    return lambda image, newest: 0


def _one_revision_less(original: Function) -> Function:
    def build_image(chunks: Any) -> Any:
        image = yield from original(chunks)
        if len(image.history) > 1:
            kept = EventHistory(image.history.first)
            for revision in range(image.history.first, image.revision):
                kept.append(image.history.at(revision))
            image.history, image.revision = kept, image.revision - 1
        return image

    return build_image


def _without_history(original: Function) -> Function:
    def add_history(image: Any) -> Any:
        yield from original(image)
        image.history = EventHistory(image.revision + 1)

    return add_history


def _without_prev(original: Function) -> Function:
    return lambda keyspace, key, revision: original(keyspace, key, revision)._replace(prev_kv=None)


def _created_with_the_oldest(original: Function) -> Function:
    def extend(self: Keyspace, key: bytes, versions: list[Any]) -> None:
        first = versions[0]
        if first.version > 1:
            shifted = first.create_revision
            versions = [
                kv._replace(create_revision=first.mod_revision) if kv.create_revision == shifted else kv
                for kv in versions
            ]
        original(self, key, versions)

    return extend


def _without_tombstones(original: Function) -> Function:
    """The last version of a deleted key comes back to life."""

    def extend(self: Keyspace, key: bytes, versions: list[Any]) -> None:
        if len(versions) > 1 and not versions[-1].version:
            versions = versions[:-1]
        original(self, key, versions)

    return extend


def _no_catching_up(original: Function) -> Function:
    def reset(self: Hub, revision: int) -> None:
        self.revision = revision

    return reset


def _ended_leases_stay(original: Function) -> Function:
    """The number of the first renewal is not in the snapshot."""

    def pin(self: StateMachine) -> Any:
        made = original(self)
        return type(made)(
            made.revision, made.compact_revision, made.leases, made.edge, made.sessions, made.alarms, 0
        )

    return pin


_SMALL: Final = {"raft": {"segment_bytes": 4096, "snapshot_log_entries": 25, "retain_entries": 3}}
_NUMBERED: Final = {"hosts": 3, "numbered": True}
_DOWN: Final = "kill,stop,power,isolate,disk-lost"

MUTANTS: Final = (
    Mutant("restore-without-results", "a snapshot lacks the results of numbered writes",
           ((SessionTable, "load", _without_results),), _DOWN, _NUMBERED, _SMALL),
    Mutant("restore-without-sessions", "a snapshot lacks the sessions of numbered writes",
           ((SessionTable, "load", _without_sessions),), _DOWN, _NUMBERED, _SMALL),
    Mutant("restore-without-leases", "a snapshot lacks the leases",
           ((LeaseTable, "add", _without_leases),), _DOWN, {"workload": {"lease_clients": 1}}, _SMALL),
    Mutant("restore-without-renewals", "a snapshot lacks how often leases were renewed",
           ((LeaseTable, "add", _renewed_never),), _DOWN, {"workload": {"lease_clients": 1}}, _SMALL),
    Mutant("restore-without-lease-keys", "a snapshot lacks which keys hang on which lease",
           ((restore, "_lease", _without_lease_keys),), _DOWN, {"workload": {"lease_clients": 1}}, _SMALL),
    Mutant("restore-lacks-a-revision", "a restored state counts one revision too few",
           ((machine, "build_image", _one_revision_less),), _DOWN, settings=_SMALL),
    Mutant("restore-without-history", "a restored member has no past events, and no compaction to say so",
           ((restore, "_add_history", _without_history),), _DOWN, {"workload": {"watches": 2}}, _SMALL),
    Mutant("restore-without-prev-kv", "past events of a restored member lack what they replaced",
           ((restore, "_event", _without_prev),), _DOWN, {"workload": {"watches": 2}}, _SMALL),
    Mutant("restore-moves-creation", "a restored key was created with the oldest version that is left of it",
           ((Keyspace, "extend", _created_with_the_oldest),), _DOWN,
           settings=_SMALL | {"server": {"history_s": 15.0, "history_revisions_max": 40}}),
    Mutant("restore-revives-the-deleted", "a restored state lacks the newest tombstones",
           ((Keyspace, "extend", _without_tombstones),), _DOWN, settings=_SMALL),
    Mutant("install-skips-watchers", "watches of a member that installs a snapshot miss what it skipped",
           ((Hub, "reset", _no_catching_up),), "partition,link", {"workload": {"watches": 2}}, _SMALL),
    Mutant("restore-renumbers-leases", "a snapshot lacks the first renewal of the next lease",
           ((StateMachine, "_pin", _ended_leases_stay),), _DOWN, {"workload": {"lease_clients": 1}}, _SMALL),
)  # fmt: skip
