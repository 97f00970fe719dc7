"""`python -m chaos`: live runs, judging a history again, and what there is to choose from.

Exit codes: 0 valid, 1 invalid, 2 unknown or a wrong command line.
"""

from __future__ import annotations

import gc
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from chaos.commit import commit_of_the_code
from chaos.mutants.command import mutants
from chaos.sim.command import replay, sim
from raftkube.errors import RaftkubeError

if TYPE_CHECKING:
    from chaos.checkers.verdict import Verdict


@click.group()
def cli() -> None:
    """Break a raftkube on purpose and judge what it did."""


cli.add_command(sim)
cli.add_command(replay)
cli.add_command(mutants)


@cli.command()
@click.option(
    "--target", default="raftkube", show_default=True, type=click.Choice(["raftkube", "etcd"]),
    help="What is broken: raftkube, or three members of a real etcd (--config and --mutant are raftkube's).",
)  # fmt: skip
@click.option(
    "--config",
    default=None,
    help="The cluster file.  [default: cluster_configs/chaos-kill.yaml if only processes are hit, else "
    "cluster_configs/chaos-all.yaml]",
)
@click.option("--faults", default="kill", show_default=True, help="Names or groups, see `list`; none: ''.")
@click.option("--workload", default="kv", show_default=True, type=click.Choice(["kv", "kv-compares"]))
@click.option("--seed", type=int, default=None, help="Default: a random one, which is printed.")
@click.option(
    "--duration", type=click.FloatRange(1, 86_400), default=60.0, show_default=True, help="Seconds."
)
@click.option("--min-rate", default=100.0, show_default=True, help="Operations/s before the first fault.")
@click.option("--mutant", default=None, help="A bug to switch on; the cluster file must say testing: true.")
@click.option("--out", required=True, help="A folder for the report, the history and the logs.")
def live(
    target: str, config: str | None, faults: str, workload: str, seed: int | None, duration: float,
    min_rate: float, mutant: str | None, out: str,
) -> None:  # fmt: skip
    """Break parts of a real cluster under load and judge the recorded history."""
    import trio

    from chaos.live.faults import default_config
    from chaos.live.run import LiveOptions, run_live
    from raftkube.files import read_file

    chosen = secrets.randbelow(2**31) if seed is None else seed
    if target == "etcd":
        _live_etcd(faults, workload, chosen, duration, min_rate, mutant, out)
    if workload == "kv-compares":
        raise click.UsageError("--workload kv-compares is for etcd alone; add --target etcd")
    config = config or default_config(faults)
    options = LiveOptions(config, faults, workload, chosen, duration, min_rate, mutant, out)
    text = read_file(_packaged(config), what="cluster file")
    verdict = trio.run(run_live, options, text, commit_of_the_code(), _say)
    _tell(verdict, options.replay_line, out)


def _tell(verdict: Verdict, replay_line: str, out: str) -> NoReturn:
    """Say what came out and end with the verdict's exit code."""
    _say(f"verdict: {verdict.word}; checked {verdict.checked}")
    for doubt in verdict.unknown_because:
        _say(f"unknown because: {doubt}")
    for violation in verdict.first(3):
        _say(f"{violation.invariant}: {violation.sentence}")
    _say(f"report: {Path(out) / 'report.html'}")
    if verdict.exit_code:
        _say(f"again: {replay_line}")
    sys.exit(verdict.exit_code)


def _live_etcd(
    faults: str, workload: str, seed: int, duration: float, min_rate: float, mutant: str | None, out: str
) -> NoReturn:
    """The same workload and checkers on a real etcd; ends the program with the verdict's exit code."""
    import trio

    from chaos.etcd.run import EtcdOptions, run_etcd
    from raftkube.errors import ConfigError

    if mutant is not None:
        raise ConfigError("--mutant is refused: mutants are raftkube's; leave it out with --target etcd")
    options = EtcdOptions(faults, workload, seed, duration, min_rate, out)
    verdict = trio.run(run_etcd, options, commit_of_the_code(), _say)
    _tell(verdict, options.replay_line, out)


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def check(file: str) -> None:
    """Judge a recorded history again."""
    from chaos.checkers.history import HistoryError, read_history
    from chaos.checkers.judge import judge

    gc.disable()  # everything that is read stays until the process ends
    try:
        with Path(file).open("rb") as stream:
            verdict = judge(read_history(stream))
    except HistoryError as error:
        raise click.ClickException(f"{file}: {error}") from error
    _say(f"verdict: {verdict.word}; checked {verdict.checked}")
    for violation in verdict.violations:
        _say(f"{violation.invariant}: {violation.sentence}")
    for doubt in verdict.unknown_because:
        _say(f"unknown because: {doubt}")
    sys.exit(verdict.exit_code)


@cli.command("list")
def list_all() -> None:
    """Faults, workloads, invariants and mutants."""
    from chaos.checkers.judge import INVARIANTS
    from chaos.etcd.faults import ETCD_FAULTS
    from chaos.live.faults import FAULTS, GROUPS
    from chaos.mutants import MUTANTS
    from chaos.sim.worlds import WORLDS
    from raftkube.store.raft import mutants as live_mutants

    click.echo("faults:")
    for fault in FAULTS.values():
        rights = " (root)" if "root" in fault.needs else ""
        click.echo(f"  {fault.name:30} {fault.group:10} effective when {fault.consequence}{rights}")
    click.echo(f"groups of faults:\n  {', '.join((*GROUPS, 'all'))}")
    click.echo("faults of --target etcd:")
    for name, etcd_fault in ETCD_FAULTS.items():
        click.echo(f"  {name:26} effective when {etcd_fault.consequence}")
    for world, simulated in WORLDS.items():
        click.echo(f"faults of the simulated world {world}:")
        for name, what in simulated.faults.items():
            click.echo(f"  {name:30} {what}")
        if simulated.groups:
            click.echo(f"groups of faults:\n  {', '.join((*simulated.groups, 'all'))}")
    click.echo("workloads:\n  kv                         16 clients in 2 processes, 40 keys, 65 % may write")
    click.echo("  kv-compares                etcd alone: kv beside transactions that compare 3,000 keys")
    click.echo("invariants:")
    for name, promise in INVARIANTS.items():
        click.echo(f"  {name:26} {promise}")
    click.echo("mutants of a live store, where the cluster file says testing: true:")
    for name in live_mutants.names():
        click.echo(f"  {name}")
    click.echo("mutants of a simulated store:")
    for mutant in MUTANTS.values():
        click.echo(f"  {mutant.name:26} {mutant.what}")


def _packaged(path: str) -> str:
    """`cluster_configs/…` is found beside the package too, wherever the command is run."""
    if Path(path).exists() or not path.startswith("cluster_configs/"):
        return path
    return str(Path(__file__).parents[1] / path)


def _say(text: str) -> None:
    click.echo(f"chaos: {text}", err=True)


def _sentence(error: BaseException) -> str:
    """The first of several (trio's nurseries)."""
    return _sentence(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else str(error)


def main() -> None:
    """Every wrong input is one sentence and exit code 2."""
    try:
        cli.main(prog_name="python -m chaos", standalone_mode=False)
    except click.ClickException as error:
        _say(error.format_message())
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except RaftkubeError as error:
        _say(str(error))
        sys.exit(2)
    except BaseExceptionGroup as group:
        ours, rest = group.split(RaftkubeError)
        if rest is not None or ours is None:
            raise
        _say(_sentence(ours))
        sys.exit(2)


if __name__ == "__main__":
    main()
