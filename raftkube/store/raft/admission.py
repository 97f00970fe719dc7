"""Whose data directory this is, and whom a member listens to: the identity file at work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from raftkube.disk import Disk
from raftkube.net import Address
from raftkube.rng import Rng
from raftkube.store.raft.identity import Identity, IdentityFile, bootstrap, cluster_id_of
from raftkube.store.raft.membership import Configuration, MemberAddresses
from raftkube.types import member_name
from raftkube.wire.frames import FrameError

_WIPED: Final = (
    "{id} came back with an empty disk; it must rejoin under a new id: raftkube kv member replace {name}"
)
_REMOVED: Final = (
    "{id} was removed from the cluster; to bring {name} back, add it (raftkube kv member add {name}) and"
    " start it with an empty data directory"
)


def initial_identity(
    name: str, token: str, members: Mapping[str, Address], clients: Mapping[str, Address], rng: Rng
) -> Identity:
    """What a blank directory becomes in a new cluster. Raises ConfigError: `name` is not in it."""
    voters = {
        each: MemberAddresses(str(members[each]), str(clients[each]) if each in clients else "")
        for each in sorted(members)
    }
    return bootstrap(name, token, cluster_id_of(token, members), Configuration(voters), rng)


def open_identity(disk: Disk, name: str, token: str, blank: Callable[[], Identity]) -> IdentityFile:
    """The directory's identity; `blank()` if it has none yet, durable on return.

    Raises ConfigError: it is another member's or another cluster's; InvariantViolation; DiskFailed.
    """
    found = IdentityFile.load(disk)
    if found is None:
        return IdentityFile.create(disk, blank())
    found.check(name, token)
    return found


def admit(
    file: IdentityFile, known: Configuration, committed: Configuration, peer: str, incarnation: str
) -> str | None:
    """None: `peer`, of that data directory, may be listened to, and its directory is pinned, durably; else
    the sentence why it may never be again.

    An id that was made after the cluster was may be a member by an entry that is still on its way here.
    Raises FrameError: it is not a member; DiskFailed.
    """
    if peer in committed.removed:
        return _REMOVED.format(id=peer, name=member_name(peer))
    if peer not in known.members and member_name(peer) == peer:
        raise FrameError(f"{peer!r} is not a member of this cluster")
    file.unpin(committed.removed)
    if not file.pin(peer, incarnation):
        return _WIPED.format(id=peer, name=member_name(peer))
    return None
