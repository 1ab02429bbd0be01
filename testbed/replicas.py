"""Replicas of a model server, in processes of their own, that can be killed, frozen and cut off from the network."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
LINK_ADDRESSES = ("10.214.0.1", "10.214.0.2")
"""This machine, and the replica behind the link of `linked_namespace`."""


class Replica:
    """A stand-in server; the version in its responses tells replicas apart.

    Args:
        version: the version in every response.
        namespace: name of a network namespace with a link to this one, as `linked_namespace` yields it.
    """

    def __init__(self, version: int, namespace: str | None = None) -> None:
        self._version, self._namespace = version, namespace
        self._host, self._port = LINK_ADDRESSES[1] if namespace else "127.0.0.1", 0
        self.start()

    @property
    def address(self) -> str:
        """HOST:PORT; the same after a restart."""
        return f"{self._host}:{self._port}"

    def start(self) -> None:
        """Start the process and wait until it listens."""
        enter = ["ip", "netns", "exec", self._namespace] if self._namespace else []
        flags = ["--host", self._host, "--port", str(self._port), "--version", str(self._version)]
        self._process = subprocess.Popen(
            [*enter, sys.executable, "-m", "testbed.stand_in", *flags],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        self._port = int(self._process.stdout.readline())

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.communicate()

    def freeze(self) -> None:
        """Stop the process: connections stay open, and nothing responds."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End `freeze`."""
        self._process.send_signal(signal.SIGCONT)

    def cut(self) -> None:
        """Take the link down: packets are dropped."""
        _ip("-n", str(self._namespace), "link", "set", "right", "down")

    def restore(self) -> None:
        """End `cut`."""
        _ip("-n", str(self._namespace), "link", "set", "right", "up")


@contextlib.contextmanager
def linked_namespace() -> Iterator[str]:
    """Make a network namespace with a link to this one and yield its name. Needs root and iproute2."""
    name = f"digits{os.getpid()}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", "left", "type", "veth", "peer", "name", "right", "netns", name)
        _ip("address", "add", f"{LINK_ADDRESSES[0]}/24", "dev", "left")
        _ip("link", "set", "left", "up")
        _ip("-n", name, "address", "add", f"{LINK_ADDRESSES[1]}/24", "dev", "right")
        for device in ("right", "lo"):
            _ip("-n", name, "link", "set", device, "up")
        yield name
    finally:
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
