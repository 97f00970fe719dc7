#!/usr/bin/env python3
"""Make raftkube/api/protobuf/fields.json: the protobuf field numbers of the Kubernetes API.

Field numbers cannot be derived from OpenAPI. They stand in the `generated.proto` files of k8s.io/api and
k8s.io/apimachinery, which Debian ships as golang-k8s-api-dev and golang-k8s-apimachinery-dev; the Go
sources beside them say how each field is called in JSON, whether it is inlined and whether its zero value
is left out. Both packages are fetched with apt into a temporary directory, from the mirror that this
machine already uses (its own sources are read, never changed), and unpacked there.

    python scripts/protobuf_table.py [--suite sid] [--from DIR_OF_DEBS] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("golang-k8s-api-dev", "golang-k8s-apimachinery-dev")
OUT = Path(__file__).resolve().parent.parent / "raftkube/api/protobuf/fields.json"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

MESSAGE = re.compile(r"^message (\w+) \{(.*?)^\}", re.M | re.S)
FIELD = re.compile(
    r"^\s*(?:(optional|repeated|required)\s+([\w.]+)|map<(\w+),\s*([\w.]+)>)\s+(\w+)\s*=\s*(\d+)", re.M
)
STRUCT = re.compile(r"^type (\w+) struct \{(.*?)^\}", re.M | re.S)
MEMBER = re.compile(r"^\s*(?:(\w+)\s+)?([*\[\]\w.]+)\s+`([^`]*protobuf:[^`]*)`", re.M)
TAG = re.compile(r'(json|protobuf):"([^"]*)"')
GROUP_NAME = re.compile(r'^(?:const )?\s*GroupName\s*=\s*"([^"]*)"', re.M)


class Member(NamedTuple):
    """How the Go struct writes one field as JSON."""

    json_name: str
    flags: str  # i: inlined, o: omitempty, z: omitzero, p: pointer


def mirror() -> str:
    """The Debian mirror of this machine, from its own apt sources."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(ORIGIN) $(RELEASE)"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for line in listing.splitlines():
        site, _, rest = line.partition(" ")
        if rest.startswith("Debian ") and "security" not in site:
            return site
    return mirror_from_files()


def mirror_from_files() -> str:
    """The same, read from the files, for a machine that never ran `apt-get update`."""
    for path in [*Path("/etc/apt").glob("sources.list*"), *Path("/etc/apt/sources.list.d").glob("*")]:
        if path.is_file():
            found = re.search(r"(?:URIs:|^deb(?:\s+\[[^]]*\])?)\s+(\S+/debian)/?\s*", path.read_text(), re.M)
            if found:
                return found[1]
    sys.exit("no Debian mirror stands in /etc/apt; pass the two packages with --from DIR")


def fetch(suite: str, into: Path) -> None:
    """Download the packages with an apt of its own sources, lists and cache; the machine's stay untouched."""
    (into / "lists/partial").mkdir(parents=True)
    (into / "cache/archives/partial").mkdir(parents=True)
    sources = into / "raftkube.sources"
    sources.write_text(
        f"Types: deb\nURIs: {mirror()}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"
    )
    apt = [
        "apt-get", "-q", "-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-",
        "-o", f"Dir::State::lists={into}/lists", "-o", f"Dir::Cache={into}/cache",
        "-o", "APT::Sandbox::User=",
    ]  # fmt: skip
    subprocess.run([*apt, "update"], check=True, cwd=into)
    subprocess.run([*apt, "download", *PACKAGES], check=True, cwd=into)


def unpack(debs: Path, into: Path) -> dict[str, str]:
    """Unpack both packages; answer their versions."""
    versions = {}
    for package in PACKAGES:
        found = sorted(debs.glob(f"{package}_*.deb"))
        if not found:
            sys.exit(f"{debs} holds no {package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(found[-1]), str(into)], check=True)
        versions[package] = found[-1].name.split("_")[1]
    return versions


def members(folder: Path) -> dict[str, dict[int, Member]]:
    """Struct name → field number → its JSON manners, from the Go files of one package."""
    structs: dict[str, dict[int, Member]] = {}
    for path in sorted(folder.glob("*.go")):
        if path.name.endswith("_test.go") or path.name.startswith(("zz_", "generated")):
            continue
        for name, body in STRUCT.findall(path.read_text()):
            structs.setdefault(name, {}).update(_struct_members(body))
    return structs


def _struct_members(body: str) -> dict[int, Member]:
    found = {}
    for _, go_type, tags in MEMBER.findall(body):
        values = dict(TAG.findall(tags))
        parts = values["protobuf"].split(",")
        if len(parts) < 2 or "json" not in values:
            continue
        json_name, *options = values["json"].split(",")
        flags = "".join(
            flag
            for flag, present in (
                ("i", "inline" in options), ("o", "omitempty" in options),
                ("z", "omitzero" in options), ("p", go_type.startswith("*")),
            )
            if present
        )  # fmt: skip
        found[int(parts[1])] = Member(json_name, flags)
    return found


def messages(proto: Path) -> dict[str, list[list[object]]]:
    """Full message name → [[number, json name, label, type, flags], …] of one generated.proto."""
    text = re.sub(r"//[^\n]*", "", proto.read_text())
    package = re.search(r"^package ([\w.]+);", text, re.M)
    assert package, proto
    structs = members(proto.parent)
    return {
        f"{package[1]}.{name}": [
            _row(package[1], structs.get(name, {}), *match) for match in FIELD.findall(body)
        ]
        for name, body in MESSAGE.findall(text)
    }


def _row(
    package: str, struct: dict[int, Member], label: str, of: str, key: str, value: str, name: str, number: str
) -> list[object]:
    assert not key or key == "string", (package, name)
    member = struct.get(int(number), Member(name, ""))
    manner = "map" if key else "repeated" if label == "repeated" else ""
    return [int(number), member.json_name or name, manner, _full(package, of or value), member.flags]


def _full(package: str, type_name: str) -> str:
    if type_name.startswith("."):
        return type_name[1:]
    scalar = {"string", "bytes", "bool", "int32", "int64", "double", "float", "uint32", "uint64"}
    return type_name if type_name in scalar else f"{package}.{type_name}"


def group_versions(protos: list[Path]) -> dict[str, str]:
    """`apps/v1` → the package of its messages, from each register.go."""
    found = {}
    for proto in protos:
        register = proto.parent / "register.go"
        group = GROUP_NAME.search(register.read_text()) if register.exists() else None
        package = re.search(r"^package ([\w.]+);", proto.read_text(), re.M)
        if group and package:
            version = proto.parent.name
            found[f"{group[1]}/{version}" if group[1] else version] = package[1]
    return found


def wanted(proto: Path) -> bool:
    """Stable versions, and what they are made of. Left out: what no client sends as a body."""
    left_out = ("testapigroup", "imagepolicy", "apidiscovery", "/admission/", "runtime/schema")
    prerelease = re.fullmatch(r"v\d+(alpha|beta)\d+", proto.parent.name)
    return not prerelease and not any(part in f"{proto.parent}/" for part in left_out)


def reachable(table: dict[str, list[list[object]]]) -> list[str]:
    """Names of message types that a field refers to and that the table lacks."""
    scalar = {"string", "bytes", "bool", "int32", "int64", "double"}
    used = {str(row[3]) for rows in table.values() for row in rows}
    return sorted(used - scalar - table.keys())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--suite", default="sid", help="Debian suite; the newest has the newest fields")
    parser.add_argument("--from", dest="debs", type=Path, help="a directory that holds the two packages")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        if arguments.debs is None:
            fetch(arguments.suite, work)
        versions = unpack(arguments.debs or work, work / "root")
        protos = sorted(p for p in (work / "root").rglob("generated.proto") if wanted(p))
        table = {name: rows for proto in protos for name, rows in messages(proto).items()}
        if missing := reachable(table):
            sys.exit(f"referred to but not found: {missing}")
        write(arguments.out, versions, group_versions(protos), table)


def write(
    out: Path, versions: dict[str, str], packages: dict[str, str], table: dict[str, list[list[object]]]
) -> None:
    """One message a line, so that a diff of two versions can be read."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(rows, separators=(',', ':'))}"
        for name, rows in sorted(table.items())
    ]
    head = json.dumps({"source": versions, "packages": dict(sorted(packages.items()))}, indent=1)
    out.write_text(head[:-2] + ',\n "messages": {\n' + ",\n".join(lines) + "\n}}\n")
    print(f"{out}: {len(table)} messages, {sum(map(len, table.values()))} fields, from {versions}")


if __name__ == "__main__":
    main()
