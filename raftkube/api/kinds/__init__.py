"""One file per built-in kind, each with a constant RESOURCE; `registry` finds them."""
