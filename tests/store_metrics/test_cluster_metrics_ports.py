"""What `raftkube up` prepares for metrics: a port for each store, a certificate for whoever scrapes."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from raftkube.clock import SystemClock
from raftkube.cluster.config import parse_cluster
from raftkube.cluster.pki import Pki
from raftkube.cluster.plan import Plan, make_plan
from raftkube.cluster.state import ClusterState

CONFIG = (Path(__file__).parents[2] / "cluster_configs" / "three-node.yaml").read_bytes()


def planned(directory: Path) -> tuple[Plan, ClusterState, list[str]]:
    ports, asked = count(40_000), []

    def take(label: str, wanted: int) -> int:
        asked.append(label)
        return wanted or next(ports)

    state = ClusterState("test", directory)
    return make_plan(parse_cluster(CONFIG, "three-node.yaml"), state, take), state, asked


def test_every_store_serves_metrics_over_https_on_loopback(tmp_path: Path) -> None:
    plan, _, asked = planned(tmp_path)
    stores = plan.of_kind("store")
    assert len(stores) == 3
    for store in stores:
        url = store.argv[store.argv.index("--listen-metrics-urls") + 1]
        assert url == f"https://127.0.0.1:{store.ports['metrics']}"
    metrics = [asked.index(f"{store.name}/metrics") for store in stores]
    chosen = [asked.index(f"{store.name}/{port}") for store in stores for port in ("client", "peer")]
    assert min(metrics) > max(chosen)  # a free port is never one that the cluster file names for another


def test_a_certificate_for_scraping_and_nothing_else(tmp_path: Path) -> None:
    plan, state, _ = planned(tmp_path)
    pki = Pki(state, SystemClock())
    pki.issue_all(plan)
    certificate_path, key_path = pki.paths("store-metrics")
    assert key_path.stat().st_mode & 0o777 == 0o600
    certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [each.value for each in organizations] == ["raftkube:store-metrics"]
    before = key_path.read_bytes()
    Pki(state, SystemClock()).issue_all(plan)  # a restart keeps it
    assert key_path.read_bytes() == before
