"""`raftkube restart`."""

from raftkube.cli.component_verbs import component_verb

command = component_verb("restart", "restarted", "Stop a component gracefully and start it again.")
