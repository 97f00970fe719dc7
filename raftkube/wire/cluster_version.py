"""The cluster version: what every member of a group is sure to apply alike.

Members are upgraded one after another, so that programs of several versions apply the same log for a while.
An operation that an older one does not know must not enter it before the last has gone:

    1    operations 1 to 11, with the fields that they began with
    2    operations 12 to 16 (sessions, numbered writes, alarms), puts that keep value or lease, and ranges
         with an order or bounds within transactions

Whatever changes what apply does for given bytes, or what a snapshot holds, begins a new number here. So does
the wording of an error that apply answers with: sessions hold it, and the state's hash covers them.
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.wire.store import TXN

CLUSTER_VERSION: Final = 2  # the newest that this program knows

# operation's number -> the number and its fields as of version 1; what is longer came with 2
_LENGTHS_1: Final = {1: 5, 2: 4, 3: 7, 4: 4, 5: 2, 6: 3, 7: 2, 8: 2, 9: 3, 10: 3, 11: 1}


def version_needed(operation: list[Any]) -> int:
    """The lowest cluster version under which `operation` (its wire form, which is valid) may be proposed."""
    number = operation[0]
    if len(operation) > _LENGTHS_1.get(number, 0):
        return 2
    if number == TXN:
        return max([version_needed(inner) for branch in operation[2:] for inner in branch], default=1)
    return 1
