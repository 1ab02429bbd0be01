"""`python -m serving`."""

import signal
import sys

from serving.cli import main

# SIGTERM is what Ctrl-C is. Without a handler, process 1 of a container never hears of it. The servers set their own.
signal.signal(signal.SIGTERM, signal.default_int_handler)
sys.exit(main())
