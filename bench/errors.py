"""What stops a bench: one sentence and exit code 2; or a figure that cannot be trusted."""


class BenchError(Exception):
    """The bench cannot run as asked."""


class Violation(Exception):
    """A side did not do what is counted: an event lost, doubled, out of order, or an error answered."""
