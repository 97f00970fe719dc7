"""Reads of ranges: which revisions can be read, which keys, in which order."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

from raftkube.errors import Compacted, FutureRevision
from raftkube.store.core.keyspace import Keyspace, Selection
from raftkube.wire.store import KeyValue, Range, RangeResult

_PLAIN: Final = Range(b"")[6:]
_TARGETS: Final[dict[str, Callable[[KeyValue], Any]]] = {
    "": operator.attrgetter("key"),
    "key": operator.attrgetter("key"),
    "version": operator.attrgetter("version"),
    "create": operator.attrgetter("create_revision"),
    "mod": operator.attrgetter("mod_revision"),
    "value": operator.attrgetter("value"),
}


def check_revision(revision: int, *, newest: int, oldest: int) -> None:
    """Raises FutureRevision or Compacted unless `revision` is 0 or can be read."""
    if revision > newest:
        raise FutureRevision(
            f"revision {revision} does not exist yet; the store is at {newest}", revision=newest
        )
    if 0 < revision < oldest:
        raise compacted(revision, oldest)


def compacted(revision: int, oldest: int) -> Compacted:
    """The error, with its sentence and field."""
    return Compacted(f"revision {revision} is compacted; {oldest} is the oldest", compact_revision=oldest)


def read_range(keyspace: Keyspace, op: Range, revision: int) -> RangeResult:
    """What `op` reads when the store is at `revision`, which it has checked."""
    newest = op.revision in (0, revision)
    if op.count_only and newest:
        return RangeResult(revision, (), keyspace.count(op.key, op.range_end))
    plain = op[6:] == _PLAIN
    selected = _select(keyspace, op, newest, op.limit if plain else 0)
    if op.count_only:
        return RangeResult(revision, (), selected.total)
    kvs, matching = selected.kvs, selected.total
    if not plain:
        kvs = arrange(op, kvs)
        matching = len(kvs)
        kvs = kvs[: op.limit] if op.limit else kvs
    if op.keys_only:
        kvs = [kv._replace(value=b"") for kv in kvs]
    return RangeResult(revision, tuple(kvs), selected.total, len(kvs) < matching)


def _select(keyspace: Keyspace, op: Range, newest: bool, limit: int) -> Selection:
    if newest:
        return keyspace.select(op.key, op.range_end, limit)
    return keyspace.select_at(op.key, op.range_end, limit, op.revision)


def arrange(op: Range, kvs: Sequence[KeyValue]) -> list[KeyValue]:
    """Those of `kvs`, which come in key order, that lie within the bounds, as `op` sorts them; not cut.

    etcd 3.5 sorts only what the limit left if there is a target without an order; here all is sorted.
    """
    kept = [
        kv
        for kv in kvs
        if op.min_mod_revision <= kv.mod_revision
        and op.min_create_revision <= kv.create_revision
        and (not op.max_mod_revision or kv.mod_revision <= op.max_mod_revision)
        and (not op.max_create_revision or kv.create_revision <= op.max_create_revision)
    ]
    return sorted(kept, key=_TARGETS[op.sort_target], reverse=op.sort_order == "descend")
