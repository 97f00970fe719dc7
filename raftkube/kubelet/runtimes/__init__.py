"""What runs containers: `process` (processes of this machine), `fake` (nothing at all, by rules).

Nothing here knows the API or decides what should run.
"""
