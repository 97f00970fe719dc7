"""The scheduler: core (queue, filters, scores, cluster view; pure) and the loop that binds pods.

No other controller lives here, and nothing here writes to a pod but its binding and its PodScheduled
condition.
"""
