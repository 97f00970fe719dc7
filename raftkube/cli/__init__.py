"""The command line: one file per verb.

A module of this folder is a verb if it has a `command`; `raftkube controller-manager` is the module
`controller_manager`. Only the verb that is asked for is imported. Wrong flags, files or environment end
with one sentence and exit code 2; what failed while working, with one sentence and 1.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from raftkube.errors import (
    ConfigError,
    DiskFailed,
    InvariantViolation,
    MemberOutdated,
    MemberRetired,
    RaftkubeError,
)
from raftkube.version import KUBERNETES_VERSION, VERSION


class _Verbs(click.Group):
    """Finds verbs by file name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
        return [name for name in names if self.get_command(ctx, name) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if not cmd_name.replace("-", "").isalnum():
            return None
        name = f"{__name__}.{cmd_name.replace('-', '_')}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name == name:
                return None
            raise
        command = getattr(module, "command", None)
        return command if isinstance(command, click.Command) else None


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    VERSION, prog_name="raftkube", message=f"raftkube {VERSION} (Kubernetes {KUBERNETES_VERSION})"
)
def raftkube() -> None:
    """A Kubernetes-compatible, fault-tolerant control plane in one pip install."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; always ends with SystemExit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None, *, root: click.Command = raftkube) -> int:
    """Run one command line (default: the process's) of `root`; returns its exit code. The named boundary
    that turns every error into a sentence."""
    try:
        outcome = root.main(arguments, prog_name="raftkube", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.Abort:
        return 130
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except BrokenPipeError:
        return _close_stdout()
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001
        return _explain(error)
    except BaseExceptionGroup as group:  # a KeyboardInterrupt inside trio's nurseries
        return 130 if group.subgroup(KeyboardInterrupt) else _explain(group)


# 3: damage, a failed disk, a member that was removed or whose program is too old. Nothing may start the
# process again by itself: a person looks first.
_EXIT_CODES: Final = (
    (ConfigError, 2), (DiskFailed, 3), (InvariantViolation, 3), (MemberRetired, 3),
    (MemberOutdated, 3), (RaftkubeError, 1),
)  # fmt: skip


def _explain(error: BaseException) -> int:
    """A sentence for what went wrong; several at once (trio's nurseries) come down to the first."""
    causes = list(_leaves(error))
    for kind, exit_code in _EXIT_CODES:
        for cause in causes:
            if isinstance(cause, kind):
                return _say(str(cause), exit_code)
    if any(isinstance(cause, BrokenPipeError) for cause in causes):
        return _close_stdout()
    return _say_bug(error, causes[0])


def _say_bug(error: BaseException, cause: BaseException) -> int:
    import os
    import traceback

    if os.environ.get("RAFTKUBE_DEBUG"):
        traceback.print_exception(error)
    frames = traceback.extract_tb(cause.__traceback__)
    place = f" ({frames[-1].name}, line {frames[-1].lineno})" if frames else ""
    return _say(
        f"internal error: {type(cause).__name__}: {cause}{place}; this is a bug, RAFTKUBE_DEBUG=1 shows more",
        1,
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _say(sentence: Any, exit_code: int) -> int:
    text = " ".join(str(sentence).split())
    click.echo(f"raftkube: {text}", err=True)
    return exit_code


def _close_stdout() -> int:
    """The reader of our output has gone: nothing more to say, and no noise at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # noqa: TID251
    return 1
