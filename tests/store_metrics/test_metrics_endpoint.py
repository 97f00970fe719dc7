"""/metrics of real members: Prometheus reads it, names and types are etcd's, values are what happened."""

from __future__ import annotations

from pathlib import Path

import trio
from monitored import get, members, scrape, until, value

from raftkube.store.server.metrics import METRICS
from raftkube.wire.cluster_version import CLUSTER_VERSION
from raftkube.wire.store import Put, Txn

ETCD_TYPES = dict(
    line.split() for line in (Path(__file__).parent / "etcd_3_5_1_metric_types.txt").read_text().splitlines()
)
# Of etcd's sources (server/etcdserver/api/rafthttp/metrics.go); a scrape shows it after a failure only.
ETCD_TYPES["etcd_network_peer_sent_failures_total"] = "counter"


def test_names_and_types_are_etcds() -> None:
    named = {row.name: row.kind for row in METRICS if row.name.startswith("etcd_")}
    assert named == {name: ETCD_TYPES.get(name) for name in named}
    assert len(named) > 35


def test_own_names_follow_prometheus_conventions() -> None:
    for row in METRICS:
        assert row.help.endswith(".") or "label" in row.help, row.name
        if row.name.startswith("raftkube_"):
            assert (row.kind == "counter") == row.name.endswith("_total"), row.name
            assert row.kind in ("counter", "gauge", "histogram")
    assert len({row.name for row in METRICS}) == len(METRICS)


async def test_a_scrape_says_what_happened(tmp_path: Path) -> None:
    async with members(tmp_path) as running, running.client() as client:
        for number in range(3):
            await client.put(b"k%d" % number, b"v" * 100)
        await client.delete(b"k0")
        await client.txn(Txn(success=(Put(b"k4", b"x"), Put(b"k5", b"x"))))
        await client.get(b"k1")
        lease = (await client.lease_grant(60)).lease
        await client.lease_keep_alive(lease)
        await client.lease_revoke(lease)
        families = await scrape(running.metrics())
    expected = {
        "etcd_server_has_leader": 1,
        "etcd_server_is_leader": 1,
        "etcd_server_is_learner": 0,
        "etcd_server_leader_changes_seen_total": 1,
        "etcd_server_proposals_failed_total": 0,
        "etcd_server_proposals_pending": 0,
        "etcd_mvcc_put_total": 5,
        "etcd_mvcc_delete_total": 1,
        "etcd_mvcc_txn_total": 1,
        "etcd_mvcc_range_total": 1,
        "etcd_debugging_mvcc_keys_total": 4,
        "etcd_debugging_mvcc_current_revision": 6,
        "etcd_debugging_lease_granted_total": 1,
        "etcd_debugging_lease_renewed_total": 1,
        "etcd_debugging_lease_revoked_total": 1,
        "etcd_debugging_lease_ttl_total_sum": 60,
        "raftkube_client_connections": 1,
        "raftkube_member_failed": 0,
    }
    assert {name: value(families, name) for name in expected} == expected
    assert value(families, "raftkube_client_requests_total", method="op") >= 9  # more if it led too late
    assert value(families, "etcd_server_id", server_id="store-1") == 1
    assert value(families, "etcd_cluster_version", cluster_version=str(CLUSTER_VERSION)) == 1
    committed = value(families, "etcd_server_proposals_committed_total")
    assert committed == value(families, "etcd_server_proposals_applied_total") >= 8
    syncs = value(families, "etcd_disk_wal_fsync_duration_seconds_count")
    assert syncs >= 8
    assert value(families, "etcd_disk_wal_fsync_duration_seconds_bucket", le="+Inf") == syncs
    assert value(families, "etcd_disk_wal_write_bytes_total") >= 512 * 8
    assert value(families, "raftkube_entry_operations_sum") == 8  # the read went into no entry
    assert value(families, "raftkube_client_received_bytes_total") > 300
    assert value(families, "raftkube_client_sent_bytes_total") > 100
    for name in ("process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"):
        assert value(families, name) > 0
    assert "python_gc_collections" in families


async def test_every_row_of_the_table_is_exposed_with_its_type_and_help(tmp_path: Path) -> None:
    async with members(tmp_path) as running:
        families = await scrape(running.metrics())
    for row in METRICS:
        family = families[row.name.removesuffix("_total") if row.kind == "counter" else row.name]
        assert family.type == row.kind, row.name
        assert family.documentation == row.help, row.name


async def test_several_members_in_one_process_do_not_mix(tmp_path: Path) -> None:
    names = ("store-1", "store-2", "store-3")
    async with members(tmp_path, names) as running, running.client() as client:
        await client.put(b"k", b"v")

        async def all_applied() -> bool:
            all_families = [await scrape(running.metrics(name)) for name in names]
            return all(value(families, "etcd_mvcc_put_total") == 1 for families in all_families)

        await until(all_applied)
        scraped = {name: await scrape(running.metrics(name)) for name in names}
    leaders = [name for name in names if value(scraped[name], "etcd_server_is_leader")]
    assert len(leaders) == 1
    leader = leaders[0]
    for name in names:
        families = scraped[name]
        assert value(families, "etcd_server_has_leader") == 1
        assert value(families, "etcd_server_id", server_id=name) == 1
        if name == leader:
            for other in set(names) - {name}:
                assert value(families, "etcd_network_peer_sent_bytes_total", To=other) > 0
                assert value(families, "etcd_network_peer_received_bytes_total", From=other) > 0
        else:
            assert value(families, "etcd_network_peer_received_bytes_total", From=leader) > 0
            assert value(families, "raftkube_entry_operations_count") == 0


async def test_watchers_and_what_waits_for_them(tmp_path: Path) -> None:
    async with members(tmp_path) as running, running.client() as client:
        async with client.watch(b"k", b"l") as watch, client.watch(b"k", b"l") as second:
            await client.put(b"k1", b"v")
            with trio.fail_after(10):
                await anext(watch)
                await anext(second)
            families = await scrape(running.metrics())
            assert value(families, "etcd_debugging_mvcc_watcher_total") == 2
            assert value(families, "etcd_debugging_mvcc_events_total") == 2
            assert value(families, "raftkube_watch_groups") == 1
            assert value(families, "etcd_debugging_mvcc_slow_watcher_total") == 0
            assert value(families, "etcd_debugging_mvcc_pending_events_total") == 0
            assert value(families, "raftkube_hub_backlog_bytes") == 0

        async def all_gone() -> bool:
            families = await scrape(running.metrics())
            return value(families, "etcd_debugging_mvcc_watcher_total") == 0

        await until(all_gone)


async def test_only_reading_is_answered(tmp_path: Path) -> None:
    async with members(tmp_path) as running:
        assert (await get(running.metrics(), "/metrics", method="POST"))[0] == 405
        assert (await get(running.metrics(), "/nothing"))[0] == 404
        assert (await get(running.metrics(), "/"))[0] == 404
