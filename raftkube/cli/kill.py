"""`raftkube kill`."""

from raftkube.cli.component_verbs import component_verb

command = component_verb("kill", "was killed", "SIGKILL a component; it stays down until `start`.")
