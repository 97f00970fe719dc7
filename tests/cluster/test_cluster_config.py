"""Cluster files: the ones that come with raftkube load; wrong ones get one sentence that names the field."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from raftkube.cluster.config import parse_cluster
from raftkube.cluster.plan import make_plan
from raftkube.cluster.state import ClusterState
from raftkube.errors import ConfigError

FILES = sorted(
    file.name for file in resources.files("cluster_configs").iterdir() if file.name.endswith(".yaml")
)
HEAD = "apiVersion: raftkube.dev/v1alpha1\nkind: Cluster\nspec:\n"


@pytest.mark.parametrize("name", FILES)
def test_every_cluster_file_of_the_project_loads(name: str) -> None:
    config = parse_cluster((resources.files("cluster_configs") / name).read_bytes(), name)
    assert config.members


def test_there_are_the_promised_files() -> None:
    assert {"three-node.yaml", "store-only.yaml", "single.yaml", "chaos-kill.yaml"} <= set(FILES)


def test_the_default_file_is_the_documented_topology() -> None:
    config = parse_cluster((resources.files("cluster_configs") / "three-node.yaml").read_bytes(), "x")
    assert [member.name for member in config.members] == ["store-1", "store-2", "store-3"]
    parts = (config.apiserver, config.controller_manager, config.scheduler, config.kubelet)
    assert [part.replicas for part in parts] == [2, 2, 2, 2]
    assert not config.testing


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not YAML at line"),
        ("[]", "the document must be a mapping"),
        ("", "the document is missing"),
        ("kind: Cluster", "apiVersion write apiVersion: raftkube.dev/v1alpha1"),
        (HEAD.replace("spec", "spce") + "  {}", "spce is not a field; known here are apiVersion"),
        (HEAD + "  {}", "spec.store is missing"),
        (HEAD + "  store: {replica: 3}", "spec.store.replica is not a field; known here are replicas"),
        (HEAD + "  store: {replicas: 2}", "a majority needs 1, 3, 5 or 7"),
        (HEAD + "  store: {replicas: '3'}", "spec.store.replicas is '3'; write a whole number"),
        (HEAD + "  store: {replicas: true}", "spec.store.replicas is True"),
        (HEAD + "  store: {members: [{name: a}, {name: b}, {name: a}]}", "two members are named 'a'"),
        (HEAD + "  store: {members: [{name: A_}]}", "lower-case letters"),
        (HEAD + "  store: {members: [{name: a, clientPort: 70000}]}", r"members\[0\].clientPort is 70000"),
        (HEAD + "  store: {mutant: x}", "mutants are refused unless spec.testing is true"),
        (HEAD + "  store: {launcher: a.b}", "spec.store.launcher is refused unless spec.testing is true"),
        (HEAD + "  testing: true\n  store: {launcher: -c}", "launcher is '-c'; write a Python module"),
        (HEAD + "  store: {}\n  scheduler: {replicas: 1}", "spec.apiserver.replicas must be at least 1"),
        (HEAD + "  store: {}\n  images: lax", "spec.images is 'lax'; write stand-in or strict"),
        (HEAD + "  store: {flags: -v}", "spec.store.flags must be a list of texts"),
    ],
)
def test_a_wrong_file_names_the_field(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_cluster(text, "my.yaml")
    assert "my.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_store_members_alone_are_started_by_the_launcher() -> None:
    text = HEAD + "  testing: true\n  store: {launcher: a.b}\n  apiserver: {replicas: 1}\n"
    ports = iter(range(20_000, 20_100))
    state = ClusterState("x", Path("/x"))
    plan = make_plan(parse_cluster(text, "x"), state, lambda label, wanted: next(ports))
    programs = {component.kind: component.program for component in plan.components}
    assert programs == {"store": "a.b", "apiserver": "raftkube", "balancer": "raftkube"}
