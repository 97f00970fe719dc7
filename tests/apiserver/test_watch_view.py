"""Watchers of the same at the same place get the same bytes, made once; and none gets another's."""

from __future__ import annotations

import gc
import random
from typing import Any

import orjson
import pytest

from raftkube.api.field_selectors import parse_field_selector
from raftkube.api.negotiation import Representation
from raftkube.api.registry import find
from raftkube.api.selectors import parse_label_selector
from raftkube.apiserver.cache import ResourceCache
from raftkube.apiserver.handlers.read import Selection
from raftkube.apiserver.rendering import WATCHES, represent
from raftkube.apiserver.watch_view import WatchView, view_of
from raftkube.wire.store import PUT_EVENT, Event, KeyValue

PODS = find("", "v1", "pods")
assert PODS is not None
TABLE = represent("application/json;as=Table;v=v1;g=meta.k8s.io", WATCHES)
JSON = represent(None, WATCHES)
DELETE_EVENT = 1 - PUT_EVENT


def pod(name: str, revision: int, label: str, size: int = 0) -> Event:
    obj = {
        "metadata": {
            "name": name,
            "namespace": "a",
            "labels": {"l": label},
            "annotations": {"x": "x" * size},
        },
        "spec": {"containers": []},
    }
    assert PODS is not None
    kv = KeyValue(PODS.key("a", name).encode(), orjson.dumps(obj), revision, revision, 1, 0)
    return Event(PUT_EVENT, kv, None)


def gone(name: str, revision: int) -> Event:
    assert PODS is not None
    return Event(DELETE_EVENT, KeyValue(PODS.key("a", name).encode(), b"", 0, revision, 0, 0), None)


def cache(history: int = 4_096) -> ResourceCache:
    assert PODS is not None
    return ResourceCache(PODS, history=history)


def view(log: ResourceCache, label: str = "", form: Representation = JSON) -> WatchView:
    assert PODS is not None
    chosen = Selection(
        PODS.key_prefix("").encode(), parse_label_selector(label), parse_field_selector("", PODS)
    )
    return view_of(log, PODS, chosen, form, "")


def lines(data: bytes) -> list[tuple[str, str]]:
    told: list[dict[str, Any]] = [orjson.loads(line) for line in data.splitlines()]
    return [(event["type"], event["object"]["metadata"]["name"]) for event in told]


def test_who_watches_the_same_shares_a_view_while_somebody_does() -> None:
    log = cache()
    first = view(log, "l=a")
    assert view(log, "l=a") is first
    assert view(log, "l=b") is not first
    assert view(log, "l=a", TABLE) is not first
    assert len(log.views) == 1
    del first
    gc.collect()
    assert len(log.views) == 0


def test_the_same_place_gives_the_same_object_until_the_log_goes_on() -> None:
    log = cache()
    shared = view(log)
    log.apply(pod("x", 2, "a"))
    first = shared.chunk(0, header=False, now=0.0)
    assert first is not None
    assert shared.chunk(0, header=False, now=1.0) is first
    log.apply(pod("y", 3, "a"))
    second = shared.chunk(0, header=False, now=0.0)
    assert second is not None
    assert (lines(second.data), second.end) == ([("ADDED", "x"), ("ADDED", "y")], 2)
    assert shared.chunk(2, header=False, now=0.0) == (b"", 2, False)


def test_columns_are_sent_to_each_watcher_once() -> None:
    log = cache()
    shared = view(log, form=TABLE)
    log.apply(pod("x", 2, "a"))
    with_columns, without = (shared.chunk(0, header=header, now=0.0) for header in (True, False))
    assert with_columns is not None
    assert without is not None
    assert orjson.loads(with_columns.data)["object"]["columnDefinitions"]
    assert not orjson.loads(without.data)["object"]["columnDefinitions"]
    assert (with_columns.header, without.header) == (False, False)
    assert shared.chunk(0, header=True, now=0.0) is with_columns


def test_columns_stay_due_while_nothing_is_shown() -> None:
    log = cache()
    shared = view(log, "l=b", TABLE)
    log.apply(pod("x", 2, "a"))
    assert shared.chunk(0, header=True, now=0.0) == (b"", 1, True)


def test_a_place_that_fell_out_of_the_log_has_nothing_even_if_it_was_made() -> None:
    log = cache(history=2)
    shared = view(log)
    log.apply(pod("x", 2, "a"))
    assert shared.chunk(0, header=False, now=0.0) is not None
    for revision in range(3, 8):
        log.apply(pod("x", revision, "a"))
    assert shared.chunk(0, header=False, now=0.0) is None
    position = log.end_position - 1
    assert shared.chunk(position, header=False, now=0.0) is not None
    log.load(iter(()), 9)  # the log starts over, its end stays
    assert shared.chunk(position, header=False, now=0.0) is None


def test_a_chunk_is_bounded_in_events_and_bytes() -> None:
    log = cache()
    shared = view(log)
    for revision in range(2, 302):
        log.apply(pod("x", revision, "a"))
    chunk = shared.chunk(0, header=False, now=0.0)
    assert chunk is not None
    assert chunk.end == 256
    for revision in range(302, 322):
        log.apply(pod("x", revision, "a", size=100_000))
    chunk = shared.chunk(300, header=False, now=0.0)
    assert chunk is not None
    assert chunk.end == 311
    assert 1_000_000 < len(chunk.data) < 1_200_000


@pytest.mark.parametrize("seed", range(5))
def test_watchers_at_any_pace_see_what_one_alone_would(seed: int) -> None:
    rng = random.Random(seed)
    log = cache()
    alone = {label: bytearray() for label in ("", "l=a", "l!=a")}
    views = {label: view(log, label) for label in alone}
    watchers = [[label, 0, bytearray()] for label in alone for _ in range(3)]

    def read(watcher: list[Any]) -> None:
        chunk = views[watcher[0]].chunk(watcher[1], header=False, now=0.0)
        assert chunk is not None
        watcher[1] = chunk.end
        watcher[2] += chunk.data

    for revision in range(2, 300):
        name = rng.choice("xyz")
        log.apply(gone(name, revision) if rng.random() < 0.2 else pod(name, revision, rng.choice("ab")))
        for watcher in watchers:
            if rng.random() < 0.3:
                read(watcher)
    for watcher in watchers:
        while watcher[1] < log.end_position:
            read(watcher)
    for label in alone:
        got = {bytes(watcher[2]) for watcher in watchers if watcher[0] == label}
        assert len(got) == 1
        assert lines(got.pop()) == expected(log, label)


def expected(log: ResourceCache, label: str) -> list[tuple[str, str]]:
    """By the definition: what is selected before and after each event."""
    selector = parse_label_selector(label)
    events = log.events_from(0, 1_000)
    assert events is not None
    told = []
    for event in events:
        was, is_ = (
            stored is not None and selector.matches(stored.obj["metadata"]["labels"])
            for stored in (event.old, event.new)
        )
        kind = {(False, True): "ADDED", (True, True): "MODIFIED", (True, False): "DELETED"}.get((was, is_))
        if kind:
            stored = event.new or event.old
            assert stored is not None
            told.append((kind, stored.name))
    return told
