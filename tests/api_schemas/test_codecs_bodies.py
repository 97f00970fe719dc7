"""Bodies in, objects out; what is wrong with a body is a 400 or 415 that says so, and never anything else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raftkube.api import codecs
from raftkube.api.codecs import JSON, PROTOBUF, YAML, Decoded
from raftkube.api.objects import copy_json
from raftkube.api.status import ApiError

DEPLOYMENT = {"api_version": "apps/v1", "kind": "Deployment", "schema": "io.k8s.api.apps.v1.Deployment"}
UNREADABLE = "the object provided is unrecognized (must be of type Deployment): "


def decode(body: bytes, content_type: str | None = None, **about: str) -> Decoded:
    return codecs.decode_object(body, content_type, **{**DEPLOYMENT, **about})  # type: ignore[arg-type]


def refused(body: bytes, content_type: str | None = None, **about: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        decode(body, content_type, **about)
    return caught.value


def test_a_body_without_type_or_kind_is_json_of_the_kind_in_the_url() -> None:
    decoded = decode(b'{"metadata":{"name":"web"}}')
    assert decoded.obj == {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}
    assert decoded.strict == ()


@pytest.mark.parametrize(
    "content_type", [None, "", JSON, "application/json; charset=utf-8", "Application/JSON"]
)
def test_json_by_any_of_its_names(content_type: str | None) -> None:
    assert decode(b"{}", content_type).obj["kind"] == "Deployment"


def test_yaml_and_protobuf_make_the_same_object() -> None:
    recorded = json.loads(Path(__file__).with_name("kubectl_bodies.json").read_text())["bodies"][0]
    from_protobuf = decode(base64.b64decode(recorded["body"]), PROTOBUF).obj
    assert decode(codecs.encode(from_protobuf, YAML), YAML).obj == from_protobuf
    assert decode(codecs.encode(from_protobuf), JSON).obj == from_protobuf
    assert from_protobuf["spec"]["template"]["spec"]["containers"][0]["command"] == ["sleep", "3600"]


REFUSED = [
    (b"", None, UNREADABLE + "couldn't get version/kind; json parse error: "),
    (b'{"a', None, '(line 1, column 4) ({"a)'),
    (b"[1]", None, "cannot unmarshal array into Go value of type struct { APIVersion string"),
    (b"null", None, "cannot unmarshal null into Go value"),
    (b"3", None, "cannot unmarshal number into Go value"),
    (b"NaN", None, "json parse error"),
    (b'{"metadata":{"generation":Infinity}}', None, "json parse error"),
    (b"[" * 100_000, None, "depth limit"),
    (b'{"a":' * 100_000, None, "depth limit"),
    (b'{"a":' * 300 + b"1" + b"}" * 300, None, "nested more than 200 deep"),
    (b'{"kind":3}', None, "kind is no string"),
    (b'{"apiVersion":"v1","kind":"Pod"}', None,
     "the API version in the data (v1) does not match the expected API version (apps/v1)"),
    (b'{"kind":"ReplicaSet"}', None, 'ReplicaSet in version "v1" cannot be handled as a Deployment: '),
    (b'{"spec":{"replicas":"3"}}', None,
     'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go '
     "struct field DeploymentSpec.spec.replicas of type int32"),
    (b'"\xff"', None, "json parse error"),
    (b"[" * 100_000, YAML, "nested more than 200 deep"),
    (b"a: &a [*a]", YAML, "yaml parse error"),
    (b"a: 1\n---\nb: 2", YAML, "more than one document"),
    (b"{", YAML, "yaml parse error"),
    (b"a: 123456789012345678901234567890", YAML, "64-bit"),
    (b"a: !!python/object:os.system x", YAML, "yaml parse error"),
    (b"\x00", YAML, "yaml parse error"),
    (b"", YAML, "cannot unmarshal null"),
    (b"just text", YAML, "cannot unmarshal string"),
    (b"{}", PROTOBUF, "protobuf"),
    (b"k8s\x00\xff", PROTOBUF, "protobuf: a number at byte 0 does not end"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "content_type", "text"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_body_that_cannot_be_read_is_400(body: bytes, content_type: str | None, text: str) -> None:
    error = refused(body, content_type)
    assert (error.code, error.reason) == (400, "BadRequest")
    assert text in error.message


def test_an_alias_bomb_is_refused_before_it_expands() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "expands to more than" in refused("\n".join(lines).encode(), YAML).message


def test_another_media_type_is_415_and_names_what_is_read() -> None:
    error = refused(b"{}", "text/plain")
    assert (error.code, error.reason) == (415, "UnsupportedMediaType")
    assert all(media in error.message for media in codecs.BODY_TYPES)


# --- strict decoding ---


@pytest.mark.parametrize(
    ("body", "strict"),
    [
        (b'{"spec":{"replicas":1,"replicas":2}}', ['duplicate field "spec.replicas"']),
        (b'{"spec":{"foo":1}}', ['unknown field "spec.foo"']),
        (b'{"spec":{"paused":true,"paused":true,"foo":1},"foo":2}',
         ['duplicate field "spec.paused"', 'unknown field "spec.foo"', 'unknown field "foo"']),
        (b'{"metadata":{"annotations":{"a":"{\\"x\\": 1, \\"x\\" : 2}"}}}', []),
        (b'{"metadata":{"annotations":{"a":"\\u0022:"}}}', []),
        (b'{"metadata":{"labels":{"a":"\\u0022:","a":"b"}}}', ['duplicate field "metadata.labels.a"']),
        (b'{"metadata" : {"name"\n:"x"}}', []),
        (b'{"spec":{"template":{"spec":{"containers":[{},{"name":"a","name":"b"}]}}}}',
         ['duplicate field "spec.template.spec.containers[1].name"']),
    ],
)  # fmt: skip
def test_what_a_strict_decoder_minds(body: bytes, strict: list[str]) -> None:
    assert list(decode(body).strict) == strict


KEYS = st.sampled_from(["a", "b", 'q":', '"', "k\\", "ü"])
PAIRS = st.recursive(
    st.none() | KEYS | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(KEYS, inner), max_size=4).map(tuple),
    max_leaves=12,
)


def written(value: Any, gap: str) -> tuple[str, bool]:
    """JSON text of a value whose objects are tuples of pairs, and whether a key stands twice."""
    if isinstance(value, tuple):
        members = [(json.dumps(key), *written(member, gap)) for key, member in value]
        text = "{" + ",".join(f"{key}{gap}:{member}" for key, member, _ in members) + "}"
        keys = [key for key, _ in value]
        return text, len(set(keys)) < len(keys) or any(twice for _, _, twice in members)
    if isinstance(value, list):
        items = [written(item, gap) for item in value]
        return "[" + ",".join(text for text, _ in items) + "]", any(twice for _, twice in items)
    return json.dumps(value), False


@given(PAIRS, st.sampled_from(["", " ", "\n"]))
def test_duplicates_are_found_exactly_where_there_are_some(value: Any, gap: str) -> None:
    text, twice = written((("metadata", (("annotations", None), ("labels", value))),), gap)
    body = text.encode()
    found = codecs._duplicate_fields(body, orjson.dumps(orjson.loads(body)))
    assert bool(found) == twice


def test_yaml_duplicates_are_found() -> None:
    assert decode(b"spec: {replicas: 1, replicas: 2}", YAML).strict == ('duplicate field "replicas"',)


@pytest.mark.parametrize(("mode", "warnings"), [("Warn", 1), ("", 1), ("Ignore", 0)])
def test_warn_tells_and_ignore_does_not(mode: str, warnings: int) -> None:
    assert len(codecs.enforce_strict(decode(b'{"foo":1}'), mode)) == warnings


def test_strict_refuses_in_upstreams_words() -> None:
    with pytest.raises(ApiError) as caught:
        codecs.enforce_strict(decode(b'{"spec":{"foo":1},"bar":2}'), "Strict")
    assert caught.value.code == 400
    assert caught.value.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
        'unknown field "spec.foo", unknown field "bar"'
    )
    assert codecs.enforce_strict(decode(b"{}"), "Strict") == []


def test_another_word_for_field_validation_is_400() -> None:
    with pytest.raises(ApiError, match="supported values"):
        codecs.enforce_strict(decode(b"{}"), "strict")


# --- YAML as sigs.k8s.io/yaml reads it ---


@pytest.mark.parametrize(
    ("text", "value"),
    [("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"), ("1:30", "1:30"), ("on", True), ("no", False),
     ("0644", 420), ("0x1f", 31), ("1e3", 1000.0), ("1_000", 1000), (".5", 0.5), ("'1'", "1"), ("~", None),
     ("1.2.3", "1.2.3"), ("-7", -7), ("0", 0), ("+1", 1)],
)  # fmt: skip
def test_yaml_scalars(text: str, value: Any) -> None:
    loaded, _ = codecs.yaml_text.load(f"a: {text}".encode())
    assert loaded == {"a": value}
    assert type(loaded["a"]) is type(value)


def test_yaml_aliases_become_objects_of_their_own() -> None:
    loaded, _ = codecs.yaml_text.load(b"a: &x {k: 1}\nb: *x\nc: {<<: *x, d: 2}")
    assert loaded == {"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "d": 2}}
    assert loaded["a"] is not loaded["b"]


# --- options and patches ---


def test_delete_options() -> None:
    body = b'{"kind":"DeleteOptions","apiVersion":"apps/v1","propagationPolicy":"Foreground","foo":1}'
    assert codecs.decode_options(body, JSON)["propagationPolicy"] == "Foreground"
    assert codecs.decode_options(b"", None) == {}
    assert codecs.decode_options(b"{}", None) == {"kind": "DeleteOptions"}


@pytest.mark.parametrize("body", [b'{"kind":"Pod"}', b"[]", b'{"gracePeriodSeconds":"1"}', b"{"])
def test_options_that_are_none_are_400(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        codecs.decode_options(body, JSON)
    assert caught.value.code == 400


def test_server_side_apply_is_415_and_names_what_is_taken() -> None:
    with pytest.raises(ApiError) as caught:
        codecs.patch_type("application/apply-patch+yaml")
    assert caught.value.code == 415
    assert all(media in caught.value.message for media in codecs.PATCH_TYPES)
    assert codecs.patch_type("application/merge-patch+json; charset=utf-8") == codecs.MERGE_PATCH


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 300 + b"]" * 300])
def test_a_patch_that_is_no_json_is_400(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        codecs.decode_patch(body)
    assert caught.value.code == 400


def test_after_a_patch_wrong_types_and_strictness_are_422_as_upstream() -> None:
    schema = DEPLOYMENT["schema"]
    for patch, mode in (({"spec": {"replicas": "x"}}, ""), ({"spec": {"foo": 1}}, "Strict")):
        with pytest.raises(ApiError) as caught:
            codecs.accept_patched(copy_json(patch), patch, schema=schema, field_validation=mode)
        assert (caught.value.code, caught.value.reason) == (422, "Invalid")
        assert caught.value.details["causes"][0]["field"] == "patch"
    patched = {"spec": {"foo": 1, "replicas": 2}}
    warnings = codecs.accept_patched(patched, {}, schema=schema, field_validation="Warn")
    assert warnings == ['unknown field "spec.foo"']
    assert patched == {"spec": {"replicas": 2}}


# --- anything at all ---


def outcome(body: bytes, content_type: str) -> int:
    """200, or the code of the refusal; any other exception is the test's failure."""
    try:
        decoded = decode(body, content_type)
    except ApiError as error:
        return error.code
    assert orjson.dumps(decoded.obj)
    return 200


@given(st.binary(max_size=300), st.sampled_from([JSON, YAML, PROTOBUF, "text/plain"]))
@example(b"k8s\x00", PROTOBUF)
@example(b"? [a]\n: b", YAML)
@example(b"? {a: b}\n: c", YAML)
@example(b"a: .nan\nb: .inf", YAML)
@example(b"a: \xed\xa0\x80", YAML)
@example(b'a: "\\ud800"', YAML)
def test_any_bytes_are_read_or_refused(body: bytes, content_type: str) -> None:
    assert outcome(body, content_type) in (200, 400, 415)


@given(st.text(alphabet="{}[]:,-&*!|>'\"%@`#? \nab1~<", max_size=60))
def test_anything_like_yaml_is_read_or_refused(text: str) -> None:
    assert outcome(text.encode(), YAML) in (200, 400)
