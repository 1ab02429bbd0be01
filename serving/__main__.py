"""`python -m serving`."""

import signal
import sys
from collections.abc import Sequence

from serving import cli


def main(arguments: Sequence[str] | None = None, prog: str = "python -m serving") -> int:
    """Run one command in a process of its own and return its exit status."""
    # SIGTERM ends a command as Ctrl-C does. Without a handler, process 1 of a container ignores it. Servers set their own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return cli.main(arguments, prog)


if __name__ == "__main__":
    sys.exit(main())
