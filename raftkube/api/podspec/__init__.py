"""The pod specification, shared by Pod and by everything with a pod template: defaults, rules, status.

The kinds themselves are in `raftkube.api.kinds`.
"""
