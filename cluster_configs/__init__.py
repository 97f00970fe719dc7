"""The cluster files that come with raftkube; `raftkube up --config` takes any of them by path."""
