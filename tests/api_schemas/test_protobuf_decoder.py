"""Protobuf bodies: what a real kubectl sent, random messages through an encoder of this test's own, and
bytes that are no message."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raftkube.api.protobuf import ProtobufError, decode
from raftkube.api.protobuf.decoder import decode_message, go_duration
from raftkube.api.protobuf.table import META, all_messages, fields_of, message_of
from raftkube.api.schemas import definitions

RECORDED = json.loads(Path(__file__).with_name("kubectl_bodies.json").read_text())["bodies"]
MAGIC = b"k8s\x00"


# --- a small encoder, written against the wire format alone ---


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def tagged(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def numbered(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def enveloped(api_version: str, kind: str, raw: bytes, encoding: str = "") -> bytes:
    type_meta = tagged(1, api_version.encode()) + tagged(2, kind.encode())
    return MAGIC + tagged(1, type_meta) + tagged(2, raw) + tagged(3, encoding.encode()) + tagged(4, b"")


# --- recorded ---


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["command"])
def test_what_kubectl_sends_is_what_it_shows(case: dict[str, Any]) -> None:
    assert decode(base64.b64decode(case["body"]), api_version="", kind="") == case["object"]


def test_an_envelope_without_a_kind_takes_that_of_the_url() -> None:
    body = enveloped("", "", tagged(1, tagged(1, b"web")))
    assert decode(body, api_version="v1", kind="ConfigMap") == {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"},
    }  # fmt: skip


# --- random messages ---

SCALARS: dict[str, tuple[Any, ...]] = {
    "string": ("", "a", "ünï", "x" * 200),
    "bytes": (b"", b"\x00\xff", b"data"),
    "bool": (False, True),
    "int32": (0, 1, -1, 2**31 - 1, -(2**31)),
    "int64": (0, 7, -7, 2**63 - 1, -(2**63)),
    "double": (0.0, 1.5, -2.25),
}


def scalar(number: int, type_: str, value: Any) -> tuple[bytes, Any]:
    if type_ == "string":
        return tagged(number, value.encode()), value
    if type_ == "bytes":
        return tagged(number, value), base64.b64encode(value).decode()
    if type_ == "double":
        return varint(number << 3 | 1) + struct.pack("<d", value), value
    return numbered(number, int(value)), value


def special(random: Random, type_: str) -> tuple[bytes, Any] | None:
    """(payload, JSON) of the messages that have a JSON form of their own."""
    short = type_.rpartition(".")[2]
    if short == "Quantity":
        return tagged(1, b"100m"), "100m"
    if short == "IntOrString":
        number = (numbered(1, 0) + numbered(2, 8080) + tagged(3, b""), 8080)
        text = (numbered(1, 1) + numbered(2, 0) + tagged(3, b"50%"), "50%")
        return random.choice((number, text))
    if short == "Time":
        return numbered(1, 1_700_000_000) + numbered(2, 5), "2023-11-14T22:13:20Z"
    if short == "MicroTime":
        return numbered(1, 1_700_000_000) + numbered(2, 123_456_789), "2023-11-14T22:13:20.123456Z"
    if short == "Duration":
        return numbered(1, 90_000_000_000), "1m30s"
    if short in ("FieldsV1", "RawExtension"):
        return tagged(1, b'{"f:a":{}}'), {"f:a": {}}
    if short in ("Verbs", "ExtraValue"):
        return tagged(1, b"x") + tagged(1, b"y"), ["x", "y"]
    return None


def message(random: Random, name: str, depth: int) -> tuple[bytes, dict[str, Any]]:
    """A random message as (bytes, the JSON object that it stands for)."""
    parts: list[bytes] = []
    obj: dict[str, Any] = {}
    for number, field in fields_of(name).items():
        if random.random() < 0.5 or (depth <= 0 and "." in field.type):
            continue
        count = random.randint(1, 3) if field.manner else 1
        for index in range(count):
            payload, value = one(random, number, field.type, depth)
            if field.manner == "map":
                key = f"key-{index}"
                parts.append(tagged(number, tagged(1, key.encode()) + one_at(2, number, payload)))
                obj.setdefault(field.name, {})[key] = value
                continue
            parts.append(payload)
            if field.manner == "repeated":
                obj.setdefault(field.name, []).append(value)
            elif field.inline:
                obj.update(value)
            elif not (field.zero_left_out and value in ("", 0, 0.0, False, [])) and not (
                field.empty_left_out and value == {}
            ):
                obj[field.name] = value
    return b"".join(parts), obj


def one(random: Random, number: int, type_: str, depth: int) -> tuple[bytes, Any]:
    if type_ in SCALARS:
        return scalar(number, type_, random.choice(SCALARS[type_]))
    payload, value = special(random, type_) or message(random, type_, depth - 1)
    return tagged(number, payload), value


def one_at(number: int, was: int, field: bytes) -> bytes:
    """The same field under another number (a map's value is field 2 of its entry)."""
    old = len(varint(was << 3))
    return varint(number << 3 | field[0] & 7) + field[old:]


KINDS = sorted(name for name in all_messages() if name.rpartition(".")[2] in {
    "Pod", "Node", "Deployment", "ReplicaSet", "Service", "Secret", "ConfigMap", "Event", "Lease", "Job",
    "Ingress", "DeleteOptions", "Eviction", "Binding", "Scale", "TokenReview", "HorizontalPodAutoscaler",
})  # fmt: skip


@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_a_message_becomes_the_object_it_stands_for(seed: int, name: str) -> None:
    data, expected = message(Random(seed), name, depth=6)
    assert decode_message(data, name) == expected


def test_the_table_has_every_kind_that_clients_send() -> None:
    for api_version, kinds in {
        "v1": ["Namespace", "Node", "Pod", "ConfigMap", "Secret", "Service", "Event", "ServiceAccount",
               "Binding", "DeleteOptions", "PersistentVolume", "PersistentVolumeClaim", "ResourceQuota"],
        "apps/v1": ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "DeleteOptions"],
        "coordination.k8s.io/v1": ["Lease"], "policy/v1": ["Eviction", "PodDisruptionBudget"],
        "autoscaling/v1": ["Scale"], "autoscaling/v2": ["HorizontalPodAutoscaler"], "batch/v1": ["Job"],
        "authentication.k8s.io/v1": ["TokenRequest"], "authorization.k8s.io/v1": ["SelfSubjectAccessReview"],
        "certificates.k8s.io/v1": ["CertificateSigningRequest"], "discovery.k8s.io/v1": ["EndpointSlice"],
    }.items():  # fmt: skip
        for kind in kinds:
            assert message_of(api_version, kind), (api_version, kind)
    assert message_of("v1", "Nonsense") is None


# Alpha fields that changed between the sources' 1.36 and the schemas' 1.37.
RENAMED = {("k8s.io.api.core.v1.NodeAllocatableResourceClaimStatus", "resources")}


@pytest.mark.parametrize("kind", ["Pod", "Node", "Service", "Secret", "ConfigMap", "ServiceAccount"])
def test_the_table_and_the_schemas_call_fields_the_same(kind: str) -> None:
    """Two sources that never met: the Go tags and OpenAPI."""
    waiting, seen = [(f"k8s.io.api.core.v1.{kind}", f"io.k8s.api.core.v1.{kind}")], set()
    while waiting:
        message_name, schema_name = waiting.pop()
        if message_name in seen or message_name.startswith(f"{META}.") or ".resource." in message_name:
            continue
        seen.add(message_name)
        properties = definitions()[schema_name].get("properties", {})
        for field in fields_of(message_name).values():
            if field.inline:
                waiting.append((field.type, schema_name))
                continue
            if (message_name, field.name) in RENAMED:
                continue
            assert field.name in properties, f"{message_name}.{field.name}"
            if field.type.startswith("k8s.io.api.core.v1."):
                short = field.type.rpartition(".")[2]
                waiting.append((field.type, f"io.k8s.api.core.v1.{short}"))


def test_no_message_holds_itself() -> None:
    """Decoding recurses by message type, so its depth is bounded by the table alone."""

    def descend(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, above
        if name in checked:
            return
        for field in fields_of(name).values():
            if "." in field.type:
                descend(field.type, (*above, name))
        checked.add(name)

    checked: set[str] = set()
    for name in all_messages():
        descend(name, ())


# --- edges ---

DELETE_OPTIONS = f"{META}.DeleteOptions"


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (numbered(99, 5) + tagged(98, b"x"), DELETE_OPTIONS, {}),
        (tagged(5, b"All"), DELETE_OPTIONS, {"dryRun": ["All"]}),
        (numbered(1, 0), DELETE_OPTIONS, {"gracePeriodSeconds": 0}),
        (tagged(12, tagged(1, b"k")), f"{META}.ObjectMeta", {"annotations": {"k": ""}}),
        (tagged(12, b""), f"{META}.ObjectMeta", {"annotations": {"": ""}}),
        (tagged(8, b""), f"{META}.ObjectMeta", {}),
        (tagged(1, b"\xff"), f"{META}.ObjectMeta", {"name": "\ufffd"}),
        (tagged(1, b"a") + tagged(1, b"b"), f"{META}.ObjectMeta", {"name": "b"}),
        (tagged(1, b"a") + tagged(1, b""), f"{META}.ObjectMeta", {}),
        (tagged(4, b"\x01\x02"), "k8s.io.api.core.v1.PodSecurityContext", {"supplementalGroups": [1, 2]}),
    ],
    ids=["unknown numbers", "list", "a pointer keeps its zero", "entry without value", "empty entry",
         "zero time", "no UTF-8", "last one wins", "zero after value", "packed numbers"],
)  # fmt: skip
def test_edges(data: bytes, name: str, expected: dict[str, Any]) -> None:
    assert decode_message(data, name) == expected


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "prefix"),
        (b"k8s", "prefix"),
        (MAGIC + b"\xff", "does not end"),
        (MAGIC + tagged(2, b"x")[:-1] + b"", "are left"),
        (MAGIC + b"\x0b", "wire type 3"),
        (MAGIC + b"\x02\x00", "field number 0"),
        (enveloped("v1", "Pod", b"", encoding="gzip"), "gzip"),
        (enveloped("v1", "Nonsense", b""), 'no kind "Nonsense"'),
        (enveloped("v1", "Pod", numbered(1, 3)), "wire type 0"),
        (enveloped("v1", "Pod", tagged(1, tagged(8, numbered(1, 2**62)))), "outside the years"),
        (enveloped("apps/v1", "ControllerRevision", tagged(2, tagged(1, b"{"))), "not JSON"),
    ],
)
def test_what_is_no_message_is_named(body: bytes, why: str) -> None:
    with pytest.raises(ProtobufError, match=why):
        decode(body, api_version="v1", kind="Pod")


def outcome(body: bytes) -> dict[str, Any] | str:
    """The object, or why there is none; any other exception is the test's failure."""
    try:
        return decode(body, api_version="v1", kind="Pod")
    except ProtobufError as error:
        return str(error)


@given(st.binary(max_size=200), st.sampled_from(KINDS))
@example(b"\x10\x01", "k8s.io.api.core.v1.Pod")  # a number where the envelope's object is due
def test_garbage_is_refused_and_never_more(data: bytes, name: str) -> None:
    for body in (MAGIC + data, enveloped("v1", name.rpartition(".")[2], data)):
        assert outcome(body)


@given(st.integers(0, 2**32), st.data())
def test_damaged_messages_are_refused_and_never_more(seed: int, data: st.DataObject) -> None:
    raw, _ = message(Random(seed), "k8s.io.api.core.v1.Pod", depth=4)
    body = bytearray(enveloped("v1", "Pod", raw))
    place = data.draw(st.integers(4, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    assert outcome(bytes(body))


@pytest.mark.parametrize(
    ("nanos", "text"),
    [(0, "0s"), (1, "1ns"), (1_500, "1.5µs"), (250_000_000, "250ms"), (10**9, "1s"), (90 * 10**9, "1m30s"),
     (3_600 * 10**9, "1h0m0s"), (3_723_500_000_000, "1h2m3.5s"), (-10**9, "-1s")],
)  # fmt: skip
def test_durations_are_written_as_go_does(nanos: int, text: str) -> None:
    assert go_duration(nanos) == text
