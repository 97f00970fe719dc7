"""Who belongs to the group, and how that changes: one member at a time, by an entry of the log.

A configuration is in force from the moment its entry enters a member's log, committed or not, and the one
before it returns if the entry is cut off again (Raft thesis §4.1). Two rules make single changes safe: none
begins while another is uncommitted, and none before the leader has committed an entry of its own term
(the correction of Raft §4's single-server change). Any two majorities in a row then share a member.

Voters elect and commit. Learners receive everything, and count for nothing. Ids are never used again: a
member with an empty disk is a new member, whose id is `name#` and eight hex digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import msgpack

from raftkube.errors import ConfigError, InvariantViolation, MembershipRefused
from raftkube.net import parse_address
from raftkube.types import member_name

CONFIGURATION: Final = b"\x10"  # the kind of a log entry that carries one

_FORMATS: Final = (1, 2)  # 2 carries a cluster version
_MEMBERS_MAX: Final = 15  # voters and learners; more than seven voters only cost speed
_REMOVED_MAX: Final = 64
_ADDRESS_BYTES_MAX: Final = 300


class MemberAddresses(NamedTuple):
    """Where a member is reached: host:port. `client` is empty where it is not known."""

    peer: str
    client: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """`promote`: the learners that become voters once they have caught up. `removed`: ids that were members
    before, the newest last. `cluster_version`: what all members know how to apply; it only ever rises."""

    voters: Mapping[str, MemberAddresses]
    learners: Mapping[str, MemberAddresses] = field(default_factory=dict)
    promote: frozenset[str] = frozenset()
    removed: tuple[str, ...] = ()
    cluster_version: int = 1

    @classmethod
    def of_names(cls, names: Iterable[str]) -> Configuration:
        """Voters whose addresses are nobody's concern (whoever embeds a member brings messages himself)."""
        return cls({name: MemberAddresses("") for name in sorted(names)})

    @property
    def members(self) -> dict[str, MemberAddresses]:
        """Voters and learners by id, sorted."""
        return dict(sorted({**self.voters, **self.learners}.items()))

    @property
    def majority(self) -> int:
        """Voters that make one."""
        return len(self.voters) // 2 + 1

    def find(self, member: str) -> str | None:
        """The id of the member with that id or name."""
        return next((id_ for id_ in self.members if member in (id_, member_name(id_))), None)

    def encode(self) -> bytes:
        """The same bytes for equal configurations."""

        def plain(members: Mapping[str, MemberAddresses]) -> list[Any]:
            return [[id_, *members[id_]] for id_ in sorted(members)]

        fields = [plain(self.voters), plain(self.learners), sorted(self.promote), [*self.removed]]
        later = [self.cluster_version] if self.cluster_version > 1 else []
        packed: bytes = msgpack.packb([1 + len(later), *fields, *later])
        return packed

    @classmethod
    def decode(cls, data: bytes) -> Configuration:
        """Raises InvariantViolation: not one of ours (the bytes' own checksum has been verified)."""
        try:
            version, *fields = msgpack.unpackb(data)
            if version not in _FORMATS:
                raise InvariantViolation(
                    f"a configuration of format {version}; this program reads {_FORMATS[-1]}: upgrade it"
                )
            voters, learners, promote, removed, *later = fields
            return cls(
                {id_: MemberAddresses(peer, client) for id_, peer, client in voters},
                {id_: MemberAddresses(peer, client) for id_, peer, client in learners},
                frozenset(promote),
                tuple(removed),
                *later,
            )
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise InvariantViolation(f"a configuration cannot be read: {error}") from error


# Changes.


class AddLearner(NamedTuple):
    """A member that receives the log; with `promote` the leader makes it a voter once it has caught up."""

    id: str
    addresses: MemberAddresses
    promote: bool


class Promote(NamedTuple):
    """A learner becomes a voter."""

    id: str


class Remove(NamedTuple):
    """A voter or learner is no member any more; its id never comes back."""

    id: str


class UpdateAddress(NamedTuple):
    """A member is reached elsewhere; None keeps what is known."""

    id: str
    peer: str | None = None
    client: str | None = None


MemberChange = AddLearner | Promote | Remove | UpdateAddress


class RaiseVersion(NamedTuple):
    """All members know this cluster version: from here on the log may hold what it brings."""

    version: int


Change = MemberChange | RaiseVersion


class Standing(NamedTuple):
    """What the leader knows when a change is asked for. `answering`: members heard within an election
    timeout, itself among them; `caught_up`: members whose logs hold all but the last few entries."""

    leader: str
    committed_in_term: bool
    change_under_way: bool
    answering: frozenset[str]
    caught_up: frozenset[str]


def changed(configuration: Configuration, change: Change, standing: Standing) -> Configuration:
    """The configuration after `change`. Raises MembershipRefused, saying which condition it fails."""
    if standing.change_under_way:
        raise MembershipRefused("another change of the members is not committed yet; try again after it")
    if not standing.committed_in_term:
        raise MembershipRefused("this leader has not committed an entry of its own term yet; try again")
    if isinstance(change, AddLearner):
        return _added(configuration, change)
    if isinstance(change, RaiseVersion):
        return _raised(configuration, change.version, standing)
    if change.id not in configuration.members:
        raise MembershipRefused(f"there is no member {change.id!r}; see: raftkube kv member list")
    if isinstance(change, Promote):
        return _promoted(configuration, change.id, standing)
    if isinstance(change, Remove):
        return _removed(configuration, change.id, standing)
    return _moved(configuration, change)


def _added(configuration: Configuration, change: AddLearner) -> Configuration:
    members = configuration.members
    name = member_name(change.id)
    if change.id in members or change.id in configuration.removed:
        raise MembershipRefused(f"the id {change.id!r} is or was a member's; ids are never used again")
    if any(member_name(id_) == name for id_ in members):
        raise MembershipRefused(
            f"a member called {name!r} is there already; remove it first, or replace it: "
            f"raftkube kv member replace {name}"
        )
    if len(members) >= _MEMBERS_MAX:
        raise MembershipRefused(f"a group has at most {_MEMBERS_MAX} members")
    _check_addresses(configuration, change.id, change.addresses)
    promote = configuration.promote | {change.id} if change.promote else configuration.promote
    return replace(
        configuration, learners={**configuration.learners, change.id: change.addresses}, promote=promote
    )


def _check_addresses(configuration: Configuration, id_: str, addresses: MemberAddresses) -> None:
    for what, text in (("peer", addresses.peer), ("client", addresses.client)):
        if not text and what == "client":
            continue
        try:
            if len(text) > _ADDRESS_BYTES_MAX or not parse_address(text).port:
                raise ConfigError(f"{text!r} is not an address that can be dialled")
        except ConfigError as error:
            raise MembershipRefused(f"{what} address: {error}") from None
    for other, theirs in configuration.members.items():
        taken = {addresses.peer, addresses.client} & {theirs.peer, theirs.client} - {""}
        if other != id_ and taken:
            raise MembershipRefused(f"{min(taken)} is the address of {other}; give each member its own")


def _promoted(configuration: Configuration, id_: str, standing: Standing) -> Configuration:
    if id_ in configuration.voters:
        raise MembershipRefused(f"{id_} is a voter already")
    if id_ not in standing.answering:
        raise MembershipRefused(f"{id_} does not answer the leader; start it first")
    if id_ not in standing.caught_up:
        raise MembershipRefused(f"{id_} has not caught up with the log yet; try again later")
    learners = {other: where for other, where in configuration.learners.items() if other != id_}
    voters = {**configuration.voters, id_: configuration.learners[id_]}
    return replace(configuration, voters=voters, learners=learners, promote=configuration.promote - {id_})


def _removed(configuration: Configuration, id_: str, standing: Standing) -> Configuration:
    if id_ == standing.leader:
        raise MembershipRefused(f"{id_} leads; it hands its leadership over before it is removed")
    voters = {other: where for other, where in configuration.voters.items() if other != id_}
    learners = {other: where for other, where in configuration.learners.items() if other != id_}
    after = Configuration(
        voters,
        learners,
        configuration.promote - {id_},
        (*configuration.removed, id_)[-_REMOVED_MAX:],
        configuration.cluster_version,
    )
    if not voters:
        raise MembershipRefused(f"{id_} is the last voter; a group without voters decides nothing")
    answering = len(standing.answering.intersection(voters))
    if id_ in configuration.voters and answering < after.majority:
        raise MembershipRefused(
            f"without {id_} only {answering} of {len(voters)} voters would answer, no majority; "
            "start or remove the silent ones first"
        )
    return after


def _raised(configuration: Configuration, version: int, standing: Standing) -> Configuration:
    if version <= configuration.cluster_version:
        raise MembershipRefused(f"the cluster's version is {configuration.cluster_version}; it only rises")
    silent = [id_ for id_ in configuration.members if id_ not in standing.answering]
    if silent:
        raise MembershipRefused(f"{', '.join(silent)} may not know version {version}: not heard of late")
    return replace(configuration, cluster_version=version)


def _moved(configuration: Configuration, change: UpdateAddress) -> Configuration:
    before = configuration.members[change.id]
    after = MemberAddresses(
        before.peer if change.peer is None else change.peer,
        before.client if change.client is None else change.client,
    )
    if after == before:
        raise MembershipRefused(f"{change.id} has these addresses already")
    _check_addresses(configuration, change.id, after)
    if change.id in configuration.voters:
        return replace(configuration, voters={**configuration.voters, change.id: after})
    return replace(configuration, learners={**configuration.learners, change.id: after})


class ConfigurationLog:
    """The configurations that the log carries, on top of the one that holds at its beginning. `on_change`
    is told of the one in force at once, in the middle of the step that changes it."""

    def __init__(self, base: Configuration) -> None:
        self._held: list[tuple[int, Configuration]] = [(0, base)]
        self.on_change: Callable[[Configuration], None] = lambda configuration: None

    @property
    def effective(self) -> Configuration:
        """The newest one in the log, committed or not: the one in force."""
        return self._held[-1][1]

    @property
    def index(self) -> int:
        """Its entry (or the last one of the snapshot that carried it); 0: it held before the first."""
        return self._held[-1][0]

    def at(self, index: int) -> Configuration:
        """The one that held right behind entry `index`."""
        found = [held for entry, held in self._held if entry <= index]
        return found[-1] if found else self._held[0][1]

    def appended(self, index: int, command: bytes) -> None:
        """An entry with a configuration has entered the log."""
        self._hold([*self._held, (index, Configuration.decode(command[len(CONFIGURATION) :]))])

    def truncated(self, index: int) -> None:
        """The entries from `index` on were cut off."""
        self._hold([self._held[0], *(held for held in self._held[1:] if held[0] < index)])

    def restored(self, index: int, base: Configuration | None) -> None:
        """A snapshot up to `index` says what holds there (None: an old one, which does not know); what the
        log carries behind it stays."""
        behind = [held for held in self._held if held[0] > index]
        self._hold([(index, self.at(index) if base is None else base), *behind])

    def forget(self, index: int) -> None:
        """Nothing at or below `index` will be asked for any more, nor ever be cut off."""
        older = [held for held in self._held if held[0] <= index]
        del self._held[: len(older) - 1]

    def _hold(self, held: list[tuple[int, Configuration]]) -> None:
        before, self._held = self.effective, held
        if self.effective != before:
            self.on_change(self.effective)
