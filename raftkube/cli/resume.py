"""`raftkube resume`."""

from raftkube.cli.component_verbs import component_verb

command = component_verb("resume", "goes on", "SIGCONT a paused component.", leader=False)
