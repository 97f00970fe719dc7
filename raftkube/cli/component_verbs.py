"""The verbs that act on one component of a running cluster; each has a file of its own that names it."""

from __future__ import annotations

import click

LEADERS = ("store", "scheduler", "controller-manager")


def component_verb(verb: str, past: str, text: str, *, leader: bool = True) -> click.Command:
    """A command `verb COMPONENT` or, with `leader`, `verb --leader KIND`."""

    def run(name: str, component: str | None = None, leader_kind: str | None = None) -> None:
        import trio

        from raftkube.cluster.control import ask
        from raftkube.cluster.state import ClusterState
        from raftkube.errors import ConfigError

        if (component is None) == (leader_kind is None):
            either = " or --leader KIND" if leader else ""
            raise ConfigError(f"say which component to {verb}: raftkube {verb} COMPONENT{either}")
        state = ClusterState.of(name).require()
        target = trio.run(ask, state, {"verb": verb, "component": component, "leader": leader_kind})
        click.echo(f"{target} {past}")

    made = click.Command(verb, callback=run, help=text)
    made.params.append(click.Argument(["component"], required=False))
    made.params.append(
        click.Option(["--name"], default="default", show_default=True, help="The cluster's name.")
    )
    if leader:
        made.params.append(
            click.Option(
                ["--leader", "leader_kind"],
                type=click.Choice(LEADERS),
                help="Whichever leads at this moment.",
            )
        )
    return made
