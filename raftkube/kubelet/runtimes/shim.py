"""The shell that stands beside each container, so that containers outlive their kubelet.

    kubelet ──starts──▶ /bin/sh <directory>/run ──runs──▶ the command itself, in the same session
       ▲  reads `out`, `err`                              (stdout, stderr: those two FIFOs)
       └─ hears of the end through `events`, then answers through `ctl`

The shell holds every FIFO open for reading and writing: while no kubelet reads, output waits in the pipe
(a writer that fills it waits too) and nobody gets SIGPIPE. When the command ends, the shell writes its
exit code to `exit`, says so on `events` and stays until a kubelet has read what is left in the pipes and
answers. It ignores (by handlers, which a child does not inherit) the signals that are meant for the
command. A shell costs 0.3 MB of memory of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from raftkube.files import write_file
from raftkube.kubelet.core.pods import EXIT_CODE_NOT_STARTED

SHELL: Final = "/bin/sh"
FIFOS: Final = ("out", "err", "events", "ctl")
_SHELL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STAND_IN_LETTERS: Final = re.compile(r"[^A-Za-z0-9._:@-]")

_SCRIPT: Final = """\
trap : HUP INT QUIT TERM USR1 USR2
exec 3<>{out} 4<>{err} 5<>{events} 6<>{ctl}
(
cd {cwd} || exit {not_started}
{prepare}exec {command} </dev/null >&3 2>&4 3>&- 4>&- 5>&- 6>&-
)
code=$?
echo "$code" >{exit}
echo exited >&5
read -r _ <&6
"""


def write_script(
    directory: Path, command: Sequence[str], environment: Mapping[str, str], cwd: str, prepare: str = ""
) -> None:
    """Make the FIFOs and, last, the script `run` in `directory`."""
    for name in FIFOS:
        os.mkfifo(directory / name, 0o600)
    # The shell drops variables whose names it cannot hold; env(1) puts them back.
    odd = [f"{name}={value}" for name, value in environment.items() if not _SHELL_NAME.fullmatch(name)]
    words = [*(["/usr/bin/env", *odd] if odd else []), *command]
    places = {name: shlex.quote(str(directory / name)) for name in (*FIFOS, "exit")}
    script = _SCRIPT.format(
        cwd=shlex.quote(cwd),
        prepare=prepare,
        command=shlex.join(words),
        not_started=EXIT_CODE_NOT_STARTED,
        **places,
    )
    write_file(directory / "run", os.fsencode(script), mode=0o600)


def spawn(directory: Path, environment: Mapping[str, str]) -> int:
    """Start the shell of `directory` in a session of its own; its pid. Raises OSError."""
    null, log = os.devnull, str(directory / "shim.log")
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        SHELL,
        [SHELL, str(directory / "run")],
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, log, append, 0o600),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores both, and that would be inherited
    )


def read_exit(directory: Path) -> tuple[int, float] | None:
    """(exit code, wall second of the end) if the command has ended."""
    path = directory / "exit"
    try:
        text, ended_at = path.read_text(), path.stat().st_mtime
    except (OSError, UnicodeDecodeError):
        return None
    return (int(text), ended_at) if re.fullmatch(r"\d{1,3}\n", text) else None


def write_exit(directory: Path, exit_code: int) -> None:
    """Record an end that the shell did not."""
    write_file(directory / "exit", f"{exit_code}\n".encode())


def stand_in(directory: Path, image: str) -> tuple[list[str], str]:
    """(command, preparation) of a process that sleeps for ever under a name that says what it stands for.

    The name is a link to sleep(1), found through PATH, so that `ps` shows it as argv[0].
    """
    sleep = os.path.realpath(shutil.which("sleep") or "/bin/sleep")
    if os.path.basename(sleep) != "sleep":  # a multi-call binary goes by its argv[0]
        return ["sleep", "infinity"], ""
    name = "raftkube-stand-in:" + (_STAND_IN_LETTERS.sub("_", image.rsplit("/", 1)[-1])[:100] or "nothing")
    os.symlink(sleep, directory / name)
    return [name, "infinity"], f"PATH={shlex.quote(str(directory))}\nexport PATH\n"
