"""The pages mention nothing that does not exist, and repeat nothing that the code says otherwise."""

from __future__ import annotations

import configparser
import html
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urldefrag

import click
import pytest
from docs_text import PAGES, ROOT, page, table_column

each_page = pytest.mark.parametrize("name", PAGES)


def script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# Links and paths --------------------------------------------------------------------------------


def headings(path: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    found = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in found}


@each_page
def test_links_lead_somewhere(name: str) -> None:
    here = (ROOT / name).parent
    for link in page(name).links:
        if link.startswith("https://"):
            continue
        target, anchor = urldefrag(link)
        path = (here / target).resolve() if target else ROOT / name
        assert path.exists(), f"{name}: {link}"
        assert not anchor or anchor in headings(path), f"{name}: {link}"


def test_the_readme_leads_to_every_page() -> None:
    linked = set(page("README.md").links)
    assert {name for name in PAGES if name != "README.md"} <= linked


FOLDERS = ("raftkube", "chaos", "bench", "tests", "scripts", "cluster_configs", "docs", ".ci")


@each_page
def test_files_that_are_named_exist(name: str) -> None:
    words = [word for span in page(name).spans for word in span.split()]
    named = [word.rstrip(",.;:") for word in words if word.split("/")[0] in FOLDERS and "/" in word]
    missing = [path for path in named if not (ROOT / path.split("::")[0]).exists()]
    assert missing == [], name


@each_page
def test_modules_and_names_that_are_named_exist(name: str) -> None:
    for span in page(name).spans:
        if re.fullmatch(r"(raftkube|chaos|bench)(\.\w+)+", span) and not span.startswith("raftkube.dev"):
            resolve(span)


def resolve(dotted: str) -> Any:
    """The object of a dotted name; a field of a class with defaults is its default."""
    parts = dotted.split(".")
    length = 1
    while length < len(parts) and importlib.util.find_spec(".".join(parts[: length + 1])) is not None:
        length += 1
        if not hasattr(importlib.import_module(".".join(parts[:length])), "__path__"):
            break
    found: Any = importlib.import_module(".".join(parts[:length]))
    for part in parts[length:]:
        found = getattr(found() if isinstance(found, type) else found, part)
    return found


# First parts of what looks like a path and is none of the repository: the environment, outputs, the API.
ELSEWHERE = (".venv", "deployment", "out", "pods", "raftkube.dev", "rate")


@each_page
def test_no_place_outside_the_project_is_named(name: str) -> None:
    words = [word for line in page(name).command_lines() for word in line]
    first = [match[1] for word in words if (match := re.match(r"([\w.]+)/\w", word))]
    assert set(first) <= {*FOLDERS, *ELSEWHERE}, name
    absolute = re.findall(r"(?<![\w>/])/(?:home|root|tmp|work|mnt|opt)/\S*", page(name).text)
    assert absolute == [], name


@each_page
def test_code_marks_come_in_pairs_on_each_line(name: str) -> None:
    odd = [line for line in page(name).prose.splitlines() if line.count("`") % 2]
    assert odd == [], name


# Commands ---------------------------------------------------------------------------------------


def roots() -> dict[tuple[str, ...], click.Command]:
    """What stands at the beginning of a command → its click command."""
    from bench.__main__ import cli as bench_cli
    from chaos.__main__ import cli as chaos_cli
    from raftkube.cli import raftkube

    python = [("python",), (".venv/bin/python",)]
    return {
        ("raftkube",): raftkube,
        **{(*start, "-m", "chaos"): chaos_cli for start in python},
        **{(*start, "-m", "bench"): bench_cli for start in python},
    }


def flags_of(command: click.Command) -> set[str]:
    """Every spelling of its options."""
    context = click.Context(command, help_option_names=["-h", "--help"])
    options = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts)}


def complaint(words: list[str], command: click.Command) -> str:
    """What is wrong with a command line; "" if nothing. Words in capitals and … stand for anything."""
    flags = flags_of(command)
    at = 0
    while at < len(words):
        word = words[at]
        if word.startswith("-") and word != "-":
            if word.split("=")[0] not in flags:
                return f"{command.name} has no {word}"
        elif isinstance(command, click.Group) and word.islower():
            found = command.get_command(click.Context(command), word)
            if found is None:
                return f"{command.name} has no verb {word}"
            command, flags = found, flags | flags_of(found)
        at += 1
    return ""


def wrong_commands(name: str) -> Iterator[str]:
    for words in page(name).command_lines():
        for start, command in roots().items():
            if tuple(words[: len(start)]) == start:
                said = complaint(words[len(start) :], command)
                if said:
                    yield f"{name}: {' '.join(words)}: {said}"


@each_page
def test_commands_and_flags_exist(name: str) -> None:
    assert list(wrong_commands(name)) == []


def test_the_check_of_commands_has_teeth() -> None:
    from raftkube.cli import raftkube

    assert complaint(["up", "--detach"], raftkube) == ""
    assert complaint(["kv", "get", "--rev", "2", "key"], raftkube) == ""
    assert "no verb" in complaint(["destroy"], raftkube)
    assert "has no --bogus" in complaint(["up", "--bogus"], raftkube)


def test_most_verbs_are_shown() -> None:
    shown = {
        words[1]
        for n in PAGES
        for words in page(n).command_lines()
        if words[:1] == ["raftkube"] and words[1:]
    }
    assert {"up", "down", "status", "logs", "kill", "start", "stop", "pause", "kv"} <= shown


@each_page
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    used = {words[1] for words in page(name).command_lines() if words[:1] == ["make"] and len(words) > 1}
    assert used <= targets, name


# What the code says -----------------------------------------------------------------------------


def test_the_layers_are_those_of_the_contract() -> None:
    contract = configparser.ConfigParser()
    contract.read(ROOT / ".importlinter")
    layers = contract["importlinter:contract:layers"]["layers"].split("\n")[1:]
    drawn = page("docs/ARCHITECTURE.md").after("layers").splitlines()[1:-1]
    assert drawn == [line.strip() for line in layers]


def test_the_processes_are_those_that_start() -> None:
    from raftkube.cluster.plan import KINDS

    assert tuple(table_column(page("docs/ARCHITECTURE.md").after("processes"), 0)) == KINDS


def test_the_processes_by_default_are_those_of_the_default_cluster() -> None:
    from raftkube.cluster.config import parse_cluster

    config = parse_cluster((ROOT / "cluster_configs" / "three-node.yaml").read_bytes(), "three-node.yaml")
    counts = [
        int(cell.split(",")[0]) for cell in table_column(page("docs/ARCHITECTURE.md").after("processes"), 1)
    ]
    parts = config.apiserver, config.controller_manager, config.scheduler, config.kubelet
    api, manager, scheduler, kubelet = (part.replicas for part in parts)
    assert counts == [len(config.members), api, 1, manager, scheduler, kubelet]


def test_the_controllers_are_those_that_run() -> None:
    from raftkube.controllers.controller_manager import WORKERS

    assert set(table_column(page("docs/ARCHITECTURE.md").after("controllers"), 0)) == set(WORKERS)


def test_the_table_of_kinds_is_that_of_the_registry() -> None:
    text = page("docs/COMPATIBILITY.md").text
    assert text == script("compatibility").with_table(text), "run: python scripts/compatibility.py"


def test_the_readme_counts_the_kinds() -> None:
    from raftkube.api.registry import RESOURCES

    counted = re.findall(r"(\d+) kinds", page("README.md").text + page("CHANGELOG.md").text)
    assert {int(number) for number in counted} == {len(RESOURCES)}


def test_the_scheduler_plugins_are_those_that_run() -> None:
    from raftkube.scheduler.core.filters import FILTERS
    from raftkube.scheduler.core.scores import SCORES

    text = " ".join(page("docs/COMPATIBILITY.md").text.split())
    told = re.search(r"filters by ([\w, ]+), and scores by ([\w, ]+)\.", text)
    assert told is not None
    names = [re.split(r",? and |, ", part) for part in told.groups()]
    assert names == [[plugin.name for plugin in FILTERS], [plugin.name for plugin in SCORES]]


def test_the_numbers_are_those_of_the_code() -> None:
    table = page("docs/GUARANTEES.md").text.split("## Numbers")[1]
    names = table_column(table, 3)
    assert len(names) > 10
    told = dict(zip(names, map(float, table_column(table, 1)), strict=True))
    assert told == {name: float(resolve(name)) for name in names}


def test_error_names_are_those_of_the_code() -> None:
    from raftkube import errors

    told = re.search(r"indefinite one \(([^)]*)\)", " ".join(page("docs/GUARANTEES.md").text.split()))
    assert told is not None
    named = re.findall(r"`(\w+)`", told[1])
    assert named
    assert all(issubclass(getattr(errors, name), errors.Indefinite) for name in named)


def test_annotations_and_headers_are_those_of_the_code() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "raftkube").rglob("*.py"))
    sources = sources.replace('f"{ANNOTATION_PREFIX}', "")
    for name in PAGES:
        for word in re.findall(r"raftkube\.dev/[\w-]+", page(name).text):
            assert word in sources, f"{name}: {word}"


def test_the_fixtures_are_those_of_the_plugin() -> None:
    from raftkube.store.server.metrics import METRICS
    from raftkube.testing import pytest_plugin

    named = {word for name in PAGES for word in re.findall(r"\braftkube_[a-z]+\b", page(name).text)}
    named -= {row.name for row in METRICS}
    assert named
    assert all(hasattr(pytest_plugin, word) for word in named)


def test_the_kubernetes_version_on_the_pages_is_the_one_served() -> None:
    from raftkube.version import KUBERNETES_VERSION

    for name in PAGES:
        versions = re.findall(r"\bv(1\.\d+\.\d+)\+raftkube", page(name).text)
        assert set(versions) <= {KUBERNETES_VERSION}, name


def test_the_changelog_leads_to_this_version() -> None:
    from raftkube.version import VERSION

    assert VERSION in page("CHANGELOG.md").text


def test_the_benches_and_what_is_missing_are_told_apart() -> None:
    from bench.__main__ import cli as bench_cli
    from chaos.__main__ import cli as chaos_cli

    later = next(
        line for line in page("docs/STATUS.md").text.splitlines() if line.startswith("- **Bench**, missing")
    )
    missing = set(later.split(": ")[1].rstrip(".").split(", "))
    assert missing.isdisjoint(bench_cli.commands)
    there = next(line for line in page("docs/STATUS.md").text.splitlines() if line.startswith("- **Bench**:"))
    assert set(re.findall(r"`([\w-]+)`", there)) == set(bench_cli.commands)
    assert ("sim" in chaos_cli.commands) == ("no `sim`" not in page("docs/STATUS.md").text)


def test_the_glossary_is_in_order() -> None:
    words = [cell.lower() for cell in table_column(page("docs/GLOSSARY.md").text, 0)]
    assert words == sorted(words)


# The picture ------------------------------------------------------------------------------------


def test_the_picture_shows_the_script_commands() -> None:
    capture = script("capture")
    text = (ROOT / "docs" / "images" / "demo.txt").read_text()
    assert tuple(re.findall(r"^\$ (.*)$", text, re.M)) == capture.COMMANDS, "run: make capture"
    svg = (ROOT / "docs" / "images" / "demo.svg").read_text().replace("&#160;", " ")
    assert all(html.escape(command, quote=False) in svg for command in capture.COMMANDS)
    assert "https://cdnjs" not in svg


def test_a_failing_command_fails_the_capture(tmp_path: Path) -> None:
    capture = script("capture")
    with pytest.raises(capture.CommandFailed, match="ended with 3"):
        capture.run("echo before; exit 3", tmp_path, capture.environment(tmp_path))
    with pytest.raises(capture.CommandFailed):
        capture.run("false | cat", tmp_path, capture.environment(tmp_path))
