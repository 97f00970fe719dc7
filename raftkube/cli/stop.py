"""`raftkube stop`."""

from raftkube.cli.component_verbs import component_verb

command = component_verb("stop", "stopped", "Stop a component gracefully; it stays down until `start`.")
