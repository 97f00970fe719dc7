"""Numbers that must not be mixed: the type checker tells them apart."""

from typing import NewType

Revision = NewType("Revision", int)  # of the store: one counter over all keys
Term = NewType("Term", int)  # of Raft
LogIndex = NewType("LogIndex", int)  # of the Raft log; never a revision
LeaseId = NewType("LeaseId", int)
