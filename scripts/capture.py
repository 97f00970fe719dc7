"""Draws docs/images/demo.svg and demo.txt: the true output of real commands on a real cluster.

`make capture` runs it: a cluster on free ports, in a state folder and with a kubeconfig of its own, the
commands below one after the other, and the end of the cluster. Nothing is edited; a command that fails, or
takes too long, fails the script, and the pictures stay as they were.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Final

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parents[1]
IMAGES: Final = ROOT / "docs" / "images"
WIDTH: Final = 100
TIMEOUT_S: Final = 180.0

# What the commands find in their folder: the default cluster, on a free port.
CLUSTER_FILE: Final = "demo.yaml"
COMMANDS: Final = (
    f"raftkube up --config {CLUSTER_FILE} --detach",
    "kubectl get nodes",
    "kubectl create deployment web --image=web --replicas=3 -- sleep 3600",
    "kubectl rollout status deployment/web",
    "raftkube kill --leader store",
    "raftkube kill apiserver-1",
    "kubectl scale deployment/web --replicas=5",
    "kubectl rollout status deployment/web",
    "kubectl get pods -o wide | cut -c1-76",
    "raftkube status",
    "raftkube down --purge",
)
STOP: Final = "raftkube down --purge"

# A window that is dark on any page.
_THEME: Final = TerminalTheme(
    (24, 26, 31),
    (215, 218, 224),
    [(40, 44, 52), (224, 108, 117), (152, 195, 121), (229, 192, 123),
     (97, 175, 239), (198, 120, 221), (86, 182, 194), (171, 178, 191)],
)  # fmt: skip

_FONTS: Final = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"


class CommandFailed(Exception):
    """A command ended with another exit code than 0; what it said is in the message."""


def cluster_file() -> str:
    """The default cluster file with a free port for its balancer."""
    text = (ROOT / "cluster_configs" / "three-node.yaml").read_text()
    changed = re.sub(r"balancer: \{port: \d+\}", "balancer: {port: 0}", text)
    assert changed != text, "three-node.yaml names its balancer's port"
    return changed


def environment(folder: Path) -> dict[str, str]:
    """The user's, with raftkube and kubectl of this interpreter first, and state kept to `folder`."""
    tools = Path(sys.executable).parent
    return os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "KUBECONFIG": str(folder / "kubeconfig"),
        "RAFTKUBE_STATE_DIR": str(folder / "state"),
    }


def run(command: str, folder: Path, env: Mapping[str, str]) -> str:
    """What `command` writes, errors included, in the order written. Raises CommandFailed."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise CommandFailed(f"{command!r} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def record(folder: Path) -> list[tuple[str, str]]:
    """Every command with its output; the cluster is gone afterwards, whatever happened."""
    (folder / CLUSTER_FILE).write_text(cluster_file())
    env = environment(folder)
    try:
        return [(command, run(command, folder, env)) for command in COMMANDS]
    finally:
        if (folder / "state" / "default").exists():
            run(STOP, folder, env)


def render(session: list[tuple[str, str]]) -> tuple[str, str]:
    """(svg, text) of a session."""
    console = Console(
        record=True,
        width=WIDTH,
        file=StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )
    for number, (command, output) in enumerate(session):
        prompt = Text.assemble(*((("\n", ""),) if number else ()), ("$ ", "bold green"), (command, "bold"))
        console.print(prompt, soft_wrap=True)
        console.print(Text(output.rstrip("\n")), soft_wrap=True)
    text = console.export_text(clear=False)
    # No font is fetched from elsewhere: a picture in a repository shows what the reader's machine has.
    frame = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    frame = frame.replace("Fira Code, monospace", _FONTS)
    svg = console.export_svg(title="raftkube", theme=_THEME, code_format=frame, unique_id="demo")
    return svg, text


def main() -> int:
    """0: both pictures are new; 1: a command failed and they are as they were."""
    with tempfile.TemporaryDirectory(prefix="raftkube-demo-") as folder:
        try:
            session = record(Path(folder))
        except (CommandFailed, subprocess.TimeoutExpired) as error:
            print(f"capture: {error}", file=sys.stderr)
            return 1
    too_long = [line for _, output in session for line in output.splitlines() if len(line) > WIDTH]
    if too_long:
        print(f"capture: wider than {WIDTH} columns: {too_long[0]!r}", file=sys.stderr)
        return 1
    svg, text = render(session)
    IMAGES.mkdir(parents=True, exist_ok=True)
    (IMAGES / "demo.svg").write_text(svg)
    (IMAGES / "demo.txt").write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
