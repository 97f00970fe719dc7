"""A cluster on this machine: its file, certificates, kubeconfig and supervisor; no component's own code."""
