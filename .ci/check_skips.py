"""Fail on a skipped test that tests/ALLOWED_SKIPS does not list: `python check_skips.py REPORT ALLOWED`.

A line of ALLOWED is `test id: reason`; the id is pytest's, `classname::name`. `#` starts a comment.
"""

import sys
import xml.etree.ElementTree as ElementTree


def allowed(path: str) -> set[str]:
    with open(path) as stream:
        lines = [line.strip() for line in stream]
    return {line.split(": ")[0] for line in lines if line and not line.startswith("#")}


def skipped(path: str) -> list[tuple[str, str]]:
    found = []
    for case in ElementTree.parse(path).iter("testcase"):
        skip = case.find("skipped")
        if skip is not None and skip.get("type") != "pytest.xfail":
            found.append((f"{case.get('classname')}::{case.get('name')}", skip.get("message", "")))
    return found


def main() -> int:
    known = allowed(sys.argv[2])
    unknown = [(name, why) for name, why in skipped(sys.argv[1]) if name not in known]
    for name, why in unknown:
        print(f"skipped but not listed in {sys.argv[2]}: {name}: {why}", file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
