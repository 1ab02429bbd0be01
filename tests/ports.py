"""TCP ports of this machine, for servers that a test starts itself."""

import itertools
import random
import socket
from contextlib import closing

_PORTS = itertools.cycle(random.sample(range(20_000, 30_000), 10_000))
"""Below the range from which the system takes ports for connections and for servers that ask for any (32768 and up).

A port from that range can be lost to a connection of another test before the server of this one listens.
"""


def free_port() -> int:
    """Return a port that nothing listens on, another one at each call."""
    for port in _PORTS:
        with closing(socket.socket()) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("the cycle of ports does not end")


def port_is_open(port: int) -> bool:
    """Return whether something accepts connections on `port`."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
