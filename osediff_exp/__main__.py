"""The only entry point: ``python -m osediff_exp [task=NAME] [+experiment=NAME] [key=value ...] [-m]``."""

from __future__ import annotations

import sys

from osediff_exp.cli.command import run_command


def main() -> None:
    """Run the command line and leave with its exit status: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
