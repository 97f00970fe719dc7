"""The versions that raftkube says of itself; nothing else lives here."""

VERSION = "0.1.0"

# The Kubernetes version whose API is served: that of the schema data (kubernetes-validate).
KUBERNETES_VERSION = "1.37.0"
