"""Environments, command lines, log entries and probe counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkube.kubelet.core.environment import (
    ConfigRef,
    ContainerConfigError,
    expand,
    make_command,
    make_environment,
    references,
)
from raftkube.kubelet.core.log_format import LINE_BYTES_MAX, decode, encode, tail_offset
from raftkube.kubelet.core.probes import ProbeCount, probe_spec

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web", "a/b": "c"}},
    "spec": {"nodeName": "node-1", "containers": [{"name": "a"}]},
}


# Source: third_party/forked/golang/expansion/expand_test.go
@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(VAR_A)", "A"), ("___$(VAR_B)___", "___B___"), ("$(VAR_A)-1", "A-1"), ("$$(VAR_A)", "$(VAR_A)"),
        ("$$$(VAR_A)", "$A"), ("$(VAR_UNKNOWN)", "$(VAR_UNKNOWN)"), ("$VAR_A", "$VAR_A"),
        ("$(VAR_A", "$(VAR_A"),
        ("$$", "$"), ("$", "$"), ("$(EMPTY)", ""), ("f000-$$VAR_A", "f000-$VAR_A"), ("$()", "$()"),
    ],
)  # fmt: skip
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, {"VAR_A": "A", "VAR_B": "B", "EMPTY": ""}) == expanded


@given(st.text(alphabet="ab$() ", max_size=30))
def test_expansion_agrees_with_upstreams_loop(text: str) -> None:
    values = {"a": "1", "ab": "$(b)"}
    assert expand(text, values) == _upstream_expand(text, values)


def _upstream_expand(text: str, values: dict[str, str]) -> str:
    """expansion.Expand, statement by statement."""
    out, cursor = "", 0
    while cursor < len(text):
        if text[cursor] != "$" or cursor + 1 == len(text):
            out += text[cursor]
            cursor += 1
            continue
        follows, end = text[cursor + 1], text.find(")", cursor + 2)
        if follows == "(" and end >= 0:
            name = text[cursor + 2 : end]
            out += values.get(name, f"$({name})")
            cursor = end + 1
            continue
        out += "$" if follows == "$" else "$" + follows
        cursor += 2
    return out


def test_environment_from_all_sources() -> None:
    container = {
        "name": "a",
        "resources": {"limits": {"memory": "64Mi"}},
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}],
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)$(P_x)"},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}},
            {"name": "NO", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "no", "optional": True}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        ],
    }
    sources = {ConfigRef("configmap", "cm"): {"x": "y"}, ConfigRef("secret", "sec"): {"k": "v"}}
    assert set(references(container)) == set(sources)
    assert make_environment(POD, container, sources, node_ip="10.0.0.1") == {
        "P_x": "y", "A": "1", "B": "1y", "NAME": "p", "APP": "c", "IP": "10.0.0.1", "NODE": "node-1",
        "S": "v", "MEM": "64Mi",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "k"}}, "couldn't find key k in ConfigMap ns/cm"),
        ({"fieldRef": {"fieldPath": "spec.hostname"}}, "fieldPath 'spec.hostname' is not supported"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    sources = {ConfigRef("configmap", "no"): None, ConfigRef("secret", "no"): None,
               ConfigRef("configmap", "cm"): {}}  # fmt: skip
    with pytest.raises(ContainerConfigError, match=message):
        make_environment(POD, {"name": "a", "env": [{"name": "X", "valueFrom": source}]}, sources, node_ip="")


def test_command_lines() -> None:
    assert make_command({"command": ["echo", "$(A)"], "args": ["$(B)"]}, {"A": "1"}) == ["echo", "1", "$(B)"]
    assert make_command({"args": ["x", "$(A)"]}, {"A": "1"}) == ["x", "1"]
    assert make_command({"args": ["--flag"]}, {}) == []


def test_an_entry_of_a_log() -> None:
    assert encode("stdout", b"one\npart", 1.25) == (
        b"1970-01-01T00:00:01.250000000Z stdout F one\n1970-01-01T00:00:01.250000000Z stdout P part\n"
    )


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"\n", b"\r\n", b"x\n"]), max_size=20))
def test_what_is_logged_is_read_back_byte_for_byte(chunks: list[bytes]) -> None:
    logged = b"".join(encode("stdout", chunk, 1.0) for chunk in chunks)
    entries = [decode(line) for line in logged.split(b"\n")[:-1]]
    assert b"".join(entry.content for entry in entries if entry is not None) == b"".join(chunks)


def test_a_long_line_is_cut_into_parts() -> None:
    line = b"x" * (LINE_BYTES_MAX * 2 + 5) + b"\n"
    entries = [decode(one) for one in encode("stderr", line, 0.0).split(b"\n")[:-1]]
    assert [entry and entry.partial for entry in entries] == [True, True, False]
    assert b"".join(entry.content for entry in entries if entry) == line


@given(st.lists(st.integers(1, 3), max_size=8), st.integers(0, 10))
def test_a_tail_is_the_last_whole_lines(parts: list[int], count: int) -> None:
    logged, lines = b"", []
    for number, pieces in enumerate(parts):  # each line comes in some pieces
        text = [b"%d-%d" % (number, piece) for piece in range(pieces)]
        text[-1] += b"\n"
        logged += b"".join(encode("stdout", piece, 0.0) for piece in text)
        lines.append(b"".join(text))
    entries = [decode(line) for line in logged[tail_offset(logged, count) :].split(b"\n")[:-1]]
    wanted = lines[-count:] if count else []
    assert b"".join(entry.content for entry in entries if entry) == b"".join(wanted)


def test_probe_thresholds() -> None:
    spec = probe_spec({"livenessProbe": {"failureThreshold": 3, "successThreshold": 2}}, "livenessProbe")
    assert spec is not None
    assert (spec.period_s, spec.timeout_s, spec.initial_delay_s) == (10.0, 1.0, 0.0)
    count = ProbeCount(spec)
    changes = [count.add(result) for result in (True, True, False, False, True, False, False, False, False)]
    assert changes == [False, True, False, False, False, False, False, True, False]
    assert count.verdict is False
