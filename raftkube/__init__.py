"""raftkube: a Kubernetes-compatible, fault-tolerant control plane.

The chaos harness and the benches live beside this package, never inside it.
"""
