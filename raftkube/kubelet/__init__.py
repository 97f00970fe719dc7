"""One node: runs the containers of the pods that are bound to it and says how they are.

What is decided lives in `core` (pure); what runs containers in `runtimes`. Pods come from the API and
their status goes back there; nothing of the scheduler, the controllers or the store is here.
"""
