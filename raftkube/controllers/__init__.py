"""The controllers: a runtime, and for each a shell that carries out what its plan in `core` says.

Nothing here knows the store or the API server from inside: everything goes through the REST client.
"""
