"""The store's state machine, pure: the same operations give the same state and the same hash everywhere.

No clock, chance, disk, network or async lives here, nor what a command looks like in the log: time and
lease ids are stamped before a command is proposed, and a lease ends by a command too.
"""

from raftkube.store.core.history import EventBatch
from raftkube.store.core.leases import LeaseView
from raftkube.store.core.machine import StateMachine
from raftkube.store.core.validation import is_plain_put, validate

__all__ = ["EventBatch", "LeaseView", "StateMachine", "is_plain_put", "validate"]
