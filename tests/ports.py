"""TCP ports of this machine, for servers that a test starts itself."""

import socket
from contextlib import closing


def free_port() -> int:
    """Return a port that nothing listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


def port_is_open(port: int) -> bool:
    """Return whether something accepts connections on `port`."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
