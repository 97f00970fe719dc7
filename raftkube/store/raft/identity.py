"""The file `identity` of a data directory: whose it is, and whose the other members' are.

    magic | crc u32 | length u32 | msgpack map

A directory that was wiped lost acknowledged entries and a vote; under its old id it would count towards
majorities that rely on them. So every fresh directory draws a random incarnation, every member pins each
id's incarnation when it first hears it, durably and before it handles a message, and refuses the id with
any other one. The file is replaced in one durable step; it exists before the first entry does.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgpack

from raftkube.disk import Disk, disk_failure
from raftkube.errors import ConfigError, InvariantViolation
from raftkube.rng import Rng
from raftkube.store.raft.membership import Configuration
from raftkube.types import member_name

DEFAULT_TOKEN: Final = "raftkube"

_FILE: Final = "identity"
_TEMPORARY: Final = "identity.tmp"
_MAGIC: Final = b"RKIDENT\n"
_HEAD: Final = struct.Struct("<8sII")
_FORMAT: Final = 1
_BYTES_MAX: Final = 1024 * 1024


def cluster_id_of(token: str, members: Mapping[str, object]) -> str:
    """16 hex digits from the token and the initial members' names and addresses."""
    text = token + "\n" + ",".join(f"{name}={members[name]}" for name in sorted(members))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def holds_a_member(disk: Disk) -> bool:
    """Whether the directory is some member's: its identity, or what one of before there were identities
    wrote. What a crash left of an identity in the making is none. Raises OSError."""
    return any(name == _FILE or name.startswith("journal-") for name in disk.names())


def new_member_id(name: str, rng: Rng) -> str:
    """An id that no member ever had."""
    return f"{name}#{rng.getrandbits(32):08x}"


@dataclass(frozen=True, slots=True)
class Identity:
    """`configuration` is the one that held before the log's first entry. `begun`: the journal exists,
    durably. `pins`: peer id -> incarnation."""

    cluster_id: str
    token: str
    id: str
    incarnation: str
    configuration: Configuration
    begun: bool = False
    pins: Mapping[str, str] = field(default_factory=dict)

    def pack(self) -> bytes:
        """The file's bytes."""
        body: bytes = msgpack.packb(
            {
                "format": _FORMAT,
                "cluster_id": self.cluster_id,
                "token": self.token,
                "id": self.id,
                "incarnation": self.incarnation,
                "configuration": self.configuration.encode(),
                "begun": self.begun,
                "pins": dict(sorted(self.pins.items())),
            }
        )
        return _HEAD.pack(_MAGIC, zlib.crc32(body), len(body)) + body

    @classmethod
    def unpack(cls, data: bytes) -> Identity:
        """Raises InvariantViolation: damaged."""
        if len(data) < _HEAD.size:
            raise InvariantViolation("the file `identity` is damaged: it is too short")
        magic, crc, size = _HEAD.unpack_from(data)
        body = data[_HEAD.size : _HEAD.size + size]
        if magic != _MAGIC or len(body) != size or zlib.crc32(body) != crc:
            raise InvariantViolation("the file `identity` is damaged: it does not match its checksum")
        fields: dict[str, Any] = msgpack.unpackb(body)
        if fields.pop("format") != _FORMAT:
            raise InvariantViolation("the file `identity` was written by another version of this program")
        configuration = Configuration.decode(fields.pop("configuration"))
        return cls(configuration=configuration, **fields)


class IdentityFile:
    """The identity on the disk; `pin` is durable when it returns."""

    def __init__(self, disk: Disk, identity: Identity) -> None:
        self._disk, self.identity = disk, identity

    @classmethod
    def load(cls, disk: Disk) -> IdentityFile | None:
        """None: the directory has none yet. Raises InvariantViolation: damaged; DiskFailed."""
        try:
            names = disk.names()
            if _TEMPORARY in names:
                disk.remove(_TEMPORARY)
            if _FILE not in names:
                return None
            file = disk.open(_FILE)
            try:
                file.sync()  # what is read may stand in the page cache only
                file.uncache()
                data = file.read(0, _BYTES_MAX)
            finally:
                file.close()
            disk.sync_directory()
        except OSError as error:
            raise disk_failure(error, "identity cannot be read") from error
        return cls(disk, Identity.unpack(data))

    @classmethod
    def create(cls, disk: Disk, identity: Identity) -> IdentityFile:
        """Write it, durably. Raises DiskFailed."""
        made = cls(disk, identity)
        made._write(identity)
        return made

    def check_journal(self) -> None:
        """Raises InvariantViolation: a journal that there was is gone, with what it held and promised."""
        if self.identity.begun and not any(name.startswith("journal-") for name in self._disk.names()):
            raise InvariantViolation(
                f"the journal of {self.identity.id} is gone from the data directory; this member must not"
                f" take part again under its id: raftkube kv member replace {member_name(self.identity.id)}"
            )

    def begin(self) -> None:
        """The journal is there, durably; from now on its absence is damage. Raises DiskFailed."""
        if not self.identity.begun:
            self._write(replace(self.identity, begun=True))

    def pinned(self, peer: str) -> str | None:
        """The incarnation under which `peer` is known here; None before the first contact."""
        return self.identity.pins.get(peer)

    def pin(self, peer: str, incarnation: str) -> bool:
        """Note the incarnation of `peer`; False if another one is known. Raises DiskFailed."""
        known = self.identity.pins.get(peer)
        if known is None:
            self._write(replace(self.identity, pins={**self.identity.pins, peer: incarnation}))
        return known is None or known == incarnation

    def unpin(self, removed: tuple[str, ...]) -> None:
        """Forget members that were removed for good; written with the next pin."""
        pins = {peer: pin for peer, pin in self.identity.pins.items() if peer not in removed}
        self.identity = replace(self.identity, pins=pins)

    def check(self, name: str, token: str) -> None:
        """Raises ConfigError: this is another member's directory, or another cluster's."""
        mine = self.identity
        if member_name(mine.id) != name:
            raise ConfigError(
                f"the data directory is that of member {member_name(mine.id)!r}, not of {name!r}; "
                "give each member its own --data-dir"
            )
        if mine.token != token:
            raise ConfigError(
                f"the data directory belongs to a cluster made with --initial-cluster-token {mine.token!r}, "
                f"not {token!r}; choose that token or another --data-dir"
            )

    def _write(self, identity: Identity) -> None:
        try:
            file = self._disk.open(_TEMPORARY, create=True)
            try:
                file.truncate(0)
                file.append(identity.pack())
                file.sync()
            finally:
                file.close()
            self._disk.rename(_TEMPORARY, _FILE)
            self._disk.sync_directory()
        except OSError as error:
            raise disk_failure(error, "identity") from error
        self.identity = identity


def bootstrap(name: str, token: str, cluster_id: str, configuration: Configuration, rng: Rng) -> Identity:
    """What a blank directory becomes: member `name` of a configuration that holds it as voter or learner."""
    id_ = configuration.find(name)
    if id_ is None:
        raise ConfigError(
            f"member {name!r} is not in the initial cluster ({', '.join(configuration.members)}); "
            "add it there"
        )
    return Identity(cluster_id, token, id_, f"{rng.getrandbits(64):016x}", configuration)
