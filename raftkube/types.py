"""Numbers that must not be mixed: the type checker tells them apart."""

from typing import NewType

Revision = NewType("Revision", int)  # of the store: one counter over all keys
Term = NewType("Term", int)  # of Raft
LogIndex = NewType("LogIndex", int)  # of the Raft log; never a revision
LeaseId = NewType("LeaseId", int)


def member_name(member_id: str) -> str:
    """The name of the store's member with that id: a bootstrap member's id is its name, a later one's is
    `name#` and eight hex digits."""
    return member_id.partition("#")[0]
