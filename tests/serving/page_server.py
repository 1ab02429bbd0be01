"""The page's server as a process of its own, and plain HTTP requests to it: for tests of the page."""

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

HttpResponse = tuple[int, dict[str, str], bytes]
"""Status, headers with names in lower case, and body."""


@contextlib.contextmanager
def start_web(
    target: str, *flags: str, python: str | Path = sys.executable, cwd: Path = ROOT
) -> Iterator[tuple[subprocess.Popen, int]]:
    """Run `python -m serving web`, as a user would, and yield the process and its port."""
    command = [python, "-m", "serving", "web", "--target", target, "--port", "0", *flags]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("draw on http://"), line + (process.stderr.read() if process.stderr else "")
            yield process, int(line.rpartition(":")[2])
        finally:
            process.kill()


def request(port: int, method: str, path: str, body=None, headers=None) -> HttpResponse:
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def error_of(response: HttpResponse) -> tuple[int, str]:
    """Return the status and the message of a response that reports an error."""
    status, _, body = response
    return status, json.loads(body)["error"]
