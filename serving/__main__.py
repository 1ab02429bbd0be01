"""`python -m serving`."""

import signal
import sys

from serving.cli import main

# SIGTERM ends a command as Ctrl-C does. Without a handler, process 1 of a container ignores it. Servers set their own.
signal.signal(signal.SIGTERM, signal.default_int_handler)
sys.exit(main())
