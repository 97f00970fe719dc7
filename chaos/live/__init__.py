"""Real processes, real signals: a cluster of its own, load, faults, and the recorded history judged."""
