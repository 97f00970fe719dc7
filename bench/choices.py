"""What every command does first: choose a seed and say so."""

from __future__ import annotations

import secrets

import click


def choose_seed(given: int | None) -> int:
    """`given`, or a random one; either is printed, so that a run can be repeated."""
    chosen = secrets.randbelow(2**31) if given is None else given
    say(f"seed {chosen}")
    return chosen


def say(text: str) -> None:
    """A line for the terminal; data goes to standard output."""
    click.echo(f"bench: {text}", err=True)
