"""The command line: one file per verb."""


def main() -> None:
    raise SystemExit(2)
