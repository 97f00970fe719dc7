"""One write as a store transaction: the object's own guard, further checks, and writes that go with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from raftkube.api.status import ApiError
from raftkube.wire.store import Compare, DeleteRange, KeyValue, Put, Range, RangeResult, Txn, TxnResult

Write = Put | DeleteRange


class Check(NamedTuple):
    """A comparison that must hold for a write, on a single key by its create or mod revision. When it does
    not, `refuse` is given what the key holds now: the error to answer with, or None to decide anew."""

    compare: Compare
    refuse: Callable[[KeyValue | None], ApiError | None]


@dataclass(frozen=True, slots=True)
class Guard:
    """What applies to every transaction of one request. dry_run: nothing is written. client_gone: whether
    nobody waits for the answer any more."""

    checks: tuple[Check, ...] = ()
    dry_run: bool = False
    client_gone: Callable[[], bool] = lambda: False

    def plus(self, *checks: Check) -> Guard:
        """With further checks."""
        return replace(self, checks=(*self.checks, *checks))

    def check_client(self) -> None:
        """A client that has hung up may have made its request elsewhere: what it asked for here is not
        begun any more. Raises ApiError 504."""
        if self.client_gone():
            raise ApiError(
                504, "Timeout", "the client closed the connection before its request was carried out"
            )


class Stale(Exception):
    """The transaction's premises no longer hold; `current` is the object's key as it is now."""

    def __init__(self, current: KeyValue | None) -> None:
        super().__init__("the object or a premise of the write has changed")
        self.current = current


def build(
    key: bytes, revision: int, writes: Sequence[Write], checks: Sequence[Check], extra: Sequence[Any] = ()
) -> Txn:
    """If `key` is still at `revision` (0: absent) and all checks hold, `writes`; else read them all."""
    compares = (Compare(key, "mod", "=", revision), *(check.compare for check in checks))
    reads = (Range(key), *(Range(check.compare.key) for check in checks))
    return Txn(compares, (*extra, *writes), reads)


def raise_failure(result: TxnResult, checks: Sequence[Check]) -> None:
    """Say why a transaction of `build` did not succeed: the ApiError of a check, or Stale."""
    found = [_single(response) for response in result.responses]
    for check, kv in zip(checks, found[1:], strict=True):
        if not holds(check.compare, kv):
            error = check.refuse(kv)
            if error is not None:
                raise error
    raise Stale(found[0])


def _single(response: Any) -> KeyValue | None:
    assert isinstance(response, RangeResult)
    return response.kvs[0] if response.kvs else None


def holds(compare: Compare, kv: KeyValue | None) -> bool:
    """Whether a check's comparison holds for what its key holds."""
    if kv is None:
        return compare.operand == 0
    return compare.operand == (kv.create_revision if compare.target == "create" else kv.mod_revision)
