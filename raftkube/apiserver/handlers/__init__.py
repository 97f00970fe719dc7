"""One module per family of verbs; each handler takes a Call and gives an answer. Routing is the server's."""
