"""Kubeconfigs as `up`, kubectl and people write them; what is wrong is named."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from raftkube.client.kubeconfig import load_kubeconfig
from raftkube.cluster.kubeconfig import make_kubeconfig
from raftkube.errors import ConfigError
from raftkube.net import Address

A, B = "https://127.0.0.1:7001", "https://127.0.0.1:7002"


def config(**cluster: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": A, **cluster}}],
        "users": [{"name": "u", "user": {"token": "t0p"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "n"}}],
        "current-context": "x",
    }


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_reads_what_up_writes(tmp_path: Path) -> None:
    written = make_kubeconfig(
        name="raftkube-default", user="admin", servers=[A, B], ca=b"CA", certificate=b"CERT", key=b"KEY"
    )
    access = load_kubeconfig(write(tmp_path / "config", written))
    assert access.servers == (Address("127.0.0.1", 7001), Address("127.0.0.1", 7002))
    assert access.tls is not None
    names = (access.tls.ca_file, access.tls.cert_file, access.tls.key_file)
    assert [Path(str(name)).read_bytes() for name in names] == [b"CA", b"CERT", b"KEY"]
    for name in names:
        assert Path(str(name)).stat().st_mode & 0o777 == 0o600
        assert Path(str(name)).parent.stat().st_mode & 0o777 == 0o700


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    content = config(**{"certificate-authority": "pki/ca.crt", "tls-server-name": "api"})
    content["users"][0]["user"] = {"client-certificate": "/etc/a.crt", "client-key": "a.key"}
    access = load_kubeconfig(write(tmp_path / "config", content))
    assert access.tls is not None
    assert access.tls.ca_file == str(tmp_path / "pki/ca.crt")
    assert access.tls.cert_file == "/etc/a.crt"
    assert access.tls.key_file == str(tmp_path / "a.key")
    assert access.tls.server_name == "api"


def test_token_and_namespace(tmp_path: Path) -> None:
    content = config()
    assert load_kubeconfig(write(tmp_path / "a", content)).bearer_token == "t0p"
    assert load_kubeconfig(str(tmp_path / "a")).namespace == "n"
    (tmp_path / "token").write_text("from-file\n")
    content["users"][0]["user"] = {"tokenFile": "token"}
    assert load_kubeconfig(write(tmp_path / "b", content)).bearer_token == "from-file"


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("https://api.example", Address("api.example", 443)),
        ("http://127.0.0.1", Address("127.0.0.1", 80)),
        ("https://[::1]:6443", Address("::1", 6443)),
        ("https://[::1]", Address("::1", 443)),
        ("https://127.0.0.1:6443/", Address("127.0.0.1", 6443)),
    ],
)
def test_server_urls(tmp_path: Path, server: str, address: Address) -> None:
    assert load_kubeconfig(write(tmp_path / "config", config(server=server))).servers == (address,)


def test_plain_http_has_no_tls(tmp_path: Path) -> None:
    assert load_kubeconfig(write(tmp_path / "config", config(server="http://127.0.0.1:1"))).tls is None


def test_environment_and_merging(tmp_path: Path) -> None:
    first = write(tmp_path / "first", {"current-context": "x", "contexts": config()["contexts"]})
    second = write(tmp_path / "second", config() | {"current-context": "other"})
    environ = {"KUBECONFIG": os.pathsep.join([str(tmp_path / "missing"), first, second])}
    assert load_kubeconfig(environ=environ).servers == (Address("127.0.0.1", 7001),)
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube/config", config(server="https://127.0.0.1:5"))
    assert load_kubeconfig(environ={"HOME": str(tmp_path)}).servers == (Address("127.0.0.1", 5),)


def test_another_context(tmp_path: Path) -> None:
    content = config()
    content["contexts"].append({"name": "y", "context": {"cluster": "c", "user": "u"}})
    access = load_kubeconfig(write(tmp_path / "config", content), context="y")
    assert access.namespace == "default"


def _user(**fields: Any) -> dict[str, Any]:
    return config() | {"users": [{"name": "u", "user": fields}]}


def _extension(*servers: str) -> dict[str, Any]:
    return config(extensions=[{"name": "raftkube.dev/servers", "extension": {"servers": list(servers)}}])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "is not YAML"),
        ("", "is empty"),
        ({}, "no current-context"),
        (config() | {"current-context": "z"}, r"no context 'z' \(it has: x\)"),
        (config() | {"clusters": []}, r"no cluster 'c' \(it has: none\)"),
        (config() | {"users": []}, "no user 'u'"),
        (config(server="127.0.0.1:1"), "must be a URL"),
        (config(server="https://127.0.0.1:99999"), "not an address"),
        (config(**{"insecure-skip-tls-verify": True}), "'insecure-skip-tls-verify' is not supported"),
        (config(**{"certificate-authority-data": "%%"}), "certificate-authority-data is not base64"),
        (_user(exec={"command": "x"}), "'exec' is not supported"),
        (_extension(A, "http://127.0.0.1:1"), "mix http"),
        (_extension("nonsense"), "must be a URL"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_kubeconfig(write(tmp_path / "config", content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_kubeconfig(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_kubeconfig(environ={"KUBECONFIG": str(tmp_path / "none")})


def test_embedded_pem_of_another_directory(tmp_path: Path) -> None:
    content = config(**{"certificate-authority-data": base64.b64encode(b"X").decode()})
    access = load_kubeconfig(write(tmp_path / "config", content), pem_directory=str(tmp_path / "pem"))
    assert access.tls is not None
    assert Path(str(access.tls.ca_file)).parent == tmp_path / "pem"
