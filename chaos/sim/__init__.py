"""The fakes: clock, disk and network of a whole cluster in one process, repeatable from a seed."""
