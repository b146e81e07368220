"""The `paroma` command. Start at `start.run`; a module for each group of commands."""

import sys


def main() -> None:
    """Run the command of this process."""
    from paroma.cli import start

    sys.exit(start.run(sys.argv[1:]))
