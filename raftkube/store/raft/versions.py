"""Rolling upgrades: what each member's program knows, and what that allows in the log.

The cluster version stands in the configuration (`membership`). The leader raises it, by one entry, once every
member, voter or learner, has said in the hello of its connections that it knows a higher one, and answers;
it never falls. Before the entry stands in the leader's log, an operation that needs more than the version
in force is refused, definitely: no member ever has to apply what its program does not know. A program that
knows less than the cluster's version stops, and is not listened to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from raftkube.errors import MemberOutdated, Unsupported
from raftkube.store.raft.membership import Configuration
from raftkube.store.raft.messages import Hello
from raftkube.wire.frames import FrameError

_RETRY_S = 0.1


class Program(NamedTuple):
    """What this program can apply: everything up to cluster version `newest`. `needed` says of an operation
    which version brought it; `highest` is the most that it says."""

    newest: int = 1
    needed: Callable[[Any], int] = lambda operation: 1
    highest: int = 1


class Versions:
    """Of one member. `behind`: there are operations that the cluster's version does not hold yet."""

    def __init__(self, name: str, program: Program) -> None:
        self._name, self._program = name, program
        self._known = {name: program.newest}
        self._version = 1
        self.behind = program.highest > 1

    def follow(self, configuration: Configuration) -> None:
        """This configuration is in force. Raises MemberOutdated."""
        self.check(configuration.cluster_version)
        self._version = configuration.cluster_version
        self.behind = self._version < self._program.highest

    def check(self, cluster_version: int) -> None:
        """Raises MemberOutdated: the cluster's version is one that this program does not know."""
        if cluster_version > self._program.newest:
            raise MemberOutdated(
                f"the cluster's version is {cluster_version}, and {self._name} runs a program that knows "
                f"versions up to {self._program.newest}: upgrade it to what the other members run"
            )

    def meet(self, peer: Hello) -> None:
        """What a member says of its program. Raises FrameError: it is too old to be listened to;
        MemberOutdated: this one is."""
        self.check(peer.cluster_version)
        self._known[peer.sender] = peer.newest
        if peer.newest < self._version:
            raise FrameError(
                f"{peer.sender} runs a program that knows cluster versions up to {peer.newest}, "
                f"and the cluster's is {self._version}: upgrade it"
            )

    def common(self, members: Iterable[str]) -> int:
        """The highest version that all of them know, as far as they were heard, and this program too."""
        return min([self._program.newest, *(self._known.get(id_, 1) for id_ in members)])

    def admit(self, operations: Iterable[Any], members: Iterable[str]) -> None:
        """May these enter the log? Raises Unsupported: nothing was proposed."""
        needed = max([self._program.needed(operation) for operation in operations], default=1)
        if needed <= self._version:
            return
        older = [f"{id_} runs {self._known[id_]}" for id_ in members if self._known.get(id_, needed) < needed]
        silent = [id_ for id_ in members if id_ not in self._known]
        fields = {"cluster_version": self._version, "needed": needed}
        if older:
            raise Unsupported(f"needs cluster version {needed}; {', '.join(older)}: upgrade it", **fields)
        why = f"{', '.join(silent)} was not heard yet" if silent else "it rises once every member answers"
        raise Unsupported(
            f"needs cluster version {needed}, the cluster's is {self._version}; {why}",
            **fields,
            retry_after_s=_RETRY_S,
        )
