"""Every error that crosses a boundary of raftkube, in three families decided once.

* definite: it did not happen and never will (`Compacted`, `NotLeader`, `InvalidRequest`).
* indefinite: it may have happened; the caller re-reads (`ProposalTimeout`, `ConnectionLost`).
* bug: an invariant is broken; the node stops and never limps on (`InvariantViolation`).

In doubt, indefinite. `code` is the word on the wire; `to_wire`/`from_wire` carry the error and its
fields between processes.
"""

from __future__ import annotations

from typing import Any, ClassVar


class RaftkubeError(Exception):
    """Base of every error that raftkube raises on purpose."""

    code: ClassVar[str] = "internal"


class InvariantViolation(RaftkubeError):
    """A bug or damaged data: the node stops."""

    code: ClassVar[str] = "invariant_violation"


class DiskFailed(RaftkubeError):
    """A write or a sync failed: the member takes part in nothing any more; the step is never retried (the
    kernel may have dropped the pages) and nothing restarts the member by itself."""

    code: ClassVar[str] = "disk_failed"


class DiskFull(DiskFailed):
    """There is no room for what must be written. Nothing that was promised is in danger: the member goes
    on from what its disk holds once there is room again."""

    code: ClassVar[str] = "disk_full"


class MemberRetired(RaftkubeError):
    """This member's id is not the cluster's any more (it was removed), or its directory was wiped: the
    node stops, and only under a new id can a member of its name take part again."""

    code: ClassVar[str] = "member_retired"


class MemberOutdated(RaftkubeError):
    """The cluster has gone on to a version that this member's program does not know: the node stops, and a
    newer program must be started in its place."""

    code: ClassVar[str] = "member_outdated"


class StoreError(RaftkubeError):
    """An error that the store answers with. `fields` are the numbers that a caller can act on."""

    code: ClassVar[str] = "store_error"
    definite: ClassVar[bool] = True

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields

    def to_wire(self) -> list[Any]:
        """Shape: [code, message, {field: value}], all msgpack types."""
        return [self.code, self.message, self.fields]


class Definite(StoreError):
    """It did not happen and never will."""


class Indefinite(StoreError):
    """It may have happened, or may still; the caller re-reads before it decides."""

    code: ClassVar[str] = "indefinite"
    definite: ClassVar[bool] = False


class InvalidRequest(Definite):
    """The request can never succeed. Fields: field (which part of it is wrong)."""

    code: ClassVar[str] = "invalid_request"


class RequestTooLarge(Definite):
    """Fields: bytes, bytes_max."""

    code: ClassVar[str] = "request_too_large"


class TooManyOperations(Definite):
    """Fields: operations, operations_max."""

    code: ClassVar[str] = "too_many_operations"


class DuplicateKey(Definite):
    """A transaction branch puts one key twice. Fields: key."""

    code: ClassVar[str] = "duplicate_key"


class Compacted(Definite):
    """The asked revision is gone. Fields: compact_revision."""

    code: ClassVar[str] = "compacted"


class FutureRevision(Definite):
    """The asked revision does not exist yet. Fields: revision (the current one)."""

    code: ClassVar[str] = "future_revision"


class LeaseNotFound(Definite):
    """Fields: lease."""

    code: ClassVar[str] = "lease_not_found"


class LeaseExists(Definite):
    """Fields: lease."""

    code: ClassVar[str] = "lease_exists"


class KeyNotFound(Definite):
    """A put was to keep the value or lease of a key that does not exist. Fields: key."""

    code: ClassVar[str] = "key_not_found"


class NoSpace(Definite):
    """The store's quota is used up and its NOSPACE alarm is on: it takes no puts until an operator has made
    room and disarmed it. Fields, where known: db_size_in_use, quota_bytes."""

    code: ClassVar[str] = "no_space"


class NotLeader(Definite):
    """This member did not take the proposal. Fields: leader (node id or None)."""

    code: ClassVar[str] = "not_leader"


class NoLeader(Definite):
    """No member is known to lead; nothing was proposed."""

    code: ClassVar[str] = "no_leader"


class Overloaded(Definite):
    """Refused before it was proposed. Fields: retry_after_s."""

    code: ClassVar[str] = "overloaded"


class DeadlineExpired(Definite):
    """The request's deadline passed before it was proposed; nothing was done."""

    code: ClassVar[str] = "deadline_expired"


class PermissionDenied(Definite):
    """The certificate presented does not carry the role that this port asks for."""

    code: ClassVar[str] = "permission_denied"


class Unreachable(Definite):
    """No connection could be made; nothing was sent."""

    code: ClassVar[str] = "unreachable"


class Stopped(Definite):
    """The node is stopping or has stopped on a disk error; nothing was proposed."""

    code: ClassVar[str] = "stopped"


class MembershipRefused(Definite):
    """The members were not changed; the message says which condition the change fails."""

    code: ClassVar[str] = "membership_refused"


class Unsupported(Definite):
    """The cluster's version does not hold this operation yet, because of members that are not upgraded or
    were not heard. Fields: cluster_version, needed, retry_after_s (only where no upgrade is missing)."""

    code: ClassVar[str] = "unsupported"


class WatchEnded(Definite):
    """The server ended this watch: it fell too far behind, or the server stops.

    Fields: revision (the last one delivered completely; resume after it), reason.
    """

    code: ClassVar[str] = "watch_ended"


class ProposalTimeout(Indefinite):
    """Proposed but not known to be committed by the deadline."""

    code: ClassVar[str] = "proposal_timeout"


class LeadershipLost(Indefinite):
    """Proposed by a leader that stepped down before the outcome was known."""

    code: ClassVar[str] = "leadership_lost"


class ConnectionLost(Indefinite):
    """The connection broke while the answer was awaited."""

    code: ClassVar[str] = "connection_lost"


class SessionUnknown(Indefinite):
    """A numbered write whose result the store does not hold (any more): it may have been applied earlier.

    It is not applied by this request. Fields: session, sequence.
    """

    code: ClassVar[str] = "session_unknown"


_STORE_ERRORS: dict[str, type[StoreError]] = {
    cls.code: cls
    for cls in (
        Indefinite, InvalidRequest, RequestTooLarge, TooManyOperations, DuplicateKey, Compacted,
        FutureRevision, LeaseNotFound, LeaseExists, NotLeader, NoLeader, Overloaded, DeadlineExpired,
        PermissionDenied, Unreachable, Stopped, MembershipRefused, WatchEnded, ProposalTimeout,
        LeadershipLost, ConnectionLost,
        KeyNotFound, NoSpace, SessionUnknown, Unsupported,
    )
}  # fmt: skip


def from_wire(wire: list[Any]) -> StoreError:
    """The error that `to_wire` described; an unknown code is indefinite (in doubt, indefinite)."""
    code, message, fields = wire
    cls = _STORE_ERRORS.get(code, Indefinite)
    return cls(message, **{str(name): value for name, value in fields.items()})


class BackupDamaged(RaftkubeError):
    """A file is no whole backup of the store: what is wrong with it."""

    code: ClassVar[str] = "backup_damaged"


class ConfigError(RaftkubeError):
    """Wrong flags, files or environment: one sentence that names the field and the fix; exit code 2."""

    code: ClassVar[str] = "config"
