"""`python -m r1cli` and the console script `r1`."""

import sys


def main() -> None:
    """Run `r1` with the words of the command line and end the process with its exit code."""
    from r1cli.cli import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
