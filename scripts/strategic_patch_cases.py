#!/usr/bin/env python3
"""Make tests/patches/upstream_strategic.json: upstream's own cases for strategic merge patches.

They stand as YAML inside k8s.io/apimachinery/pkg/util/strategicpatch/patch_test.go (Apache-2.0, Copyright
The Kubernetes Authors), which Debian ships in golang-k8s-apimachinery-dev. Each case says what a patch
makes of an object: two-way patches of the original, three-way patches of the live object.

    python scripts/strategic_patch_cases.py [--suite sid] [--from DIR_OF_DEBS] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from protobuf_table import fetch, unpack

OUT = Path(__file__).resolve().parent.parent / "tests/patches/upstream_strategic.json"
SOURCE = "k8s.io/apimachinery/pkg/util/strategicpatch/patch_test.go"
PLAIN = ("customStrategicMergePatchTestCaseData", "createStrategicMergePatchTestCaseData")
RAW = ("customStrategicMergePatchRawTestCases", "strategicMergePatchRawTestCases")


def plain_cases(text: str) -> Iterator[dict[str, Any]]:
    """Cases that are one YAML document."""
    for variable in PLAIN:
        found = re.search(rf"var {variable} = \[\]byte\(`(.*?)`\)", text, re.S)
        assert found, variable
        yield from yaml.safe_load(found[1])["testCases"]


def raw_cases(text: str) -> Iterator[dict[str, Any]]:
    """Cases that are a Go struct of YAML strings."""
    for variable in RAW:
        found = re.search(rf"var {variable} = \[\]StrategicMergePatchRawTestCase\{{(.*?)\n\}}\n", text, re.S)
        assert found, variable
        for block in re.split(r"\n\t\{\n", found[1])[1:]:
            members = re.findall(r"(\w+):\s*\[\]byte\(`(.*?)`\)", block, re.S)
            case = {
                name[0].lower() + name[1:]: yaml.safe_load(body.replace("\t", "  ")) for name, body in members
            }
            case["description"] = re.search(r'Description:\s*"(.*?)"', block)[1]  # type: ignore[index]
            expected_error = re.search(r'ExpectedError:\s*"(.*?)"', block)
            yield case | ({"expectedError": expected_error[1]} if expected_error else {})


def applications(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What to apply to what, and what must come out."""
    name = case["description"]
    two_way = case.get("twoWayResult") or case.get("modified")
    if error := case.get("expectedError"):
        yield {"name": name, "object": case["original"], "patch": case["twoWay"], "error": error}
        return
    if case.get("twoWay") is not None and two_way is not None:
        yield {"name": f"{name} (two-way)", "object": case.get("original") or {}, "patch": case["twoWay"],
               "result": two_way}  # fmt: skip
    if case.get("threeWay") is not None and case.get("result") is not None:
        yield {"name": f"{name} (three-way)", "object": case.get("current") or {}, "patch": case["threeWay"],
               "result": case["result"]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--suite", default="sid")
    parser.add_argument("--from", dest="debs", type=Path, help="a directory that holds the packages")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        if arguments.debs is None:
            fetch(arguments.suite, work)
        versions = unpack(arguments.debs or work, work / "root")
        text = next((work / "root").rglob("strategicpatch/patch_test.go")).read_text()
    cases = [item for case in [*plain_cases(text), *raw_cases(text)] for item in applications(case)]
    lines = ",\n".join(json.dumps(case) for case in cases)
    head = {
        "source": f"{SOURCE} of golang-k8s-apimachinery-dev {versions['golang-k8s-apimachinery-dev']}",
        "license": "Apache-2.0, Copyright 2014 The Kubernetes Authors",
    }
    arguments.out.write_text(json.dumps(head, indent=1)[:-2] + ',\n "cases": [\n' + lines + "\n]}\n")
    sys.stdout.write(f"{arguments.out}: {len(cases)} cases\n")


if __name__ == "__main__":
    main()
