"""bench: measures raftkube beside its peers in one run."""
