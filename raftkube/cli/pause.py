"""`raftkube pause`."""

from raftkube.cli.component_verbs import component_verb

command = component_verb(
    "pause", "was paused", "SIGSTOP a component: it keeps its memory and sockets and does nothing."
)
