"""`raftkube start`."""

from raftkube.cli.component_verbs import component_verb

command = component_verb("start", "started", "Start a component that was killed or stopped.", leader=False)
