"""`python -m raftkube` is the command `raftkube`."""

from raftkube.cli import main

if __name__ == "__main__":
    main()
