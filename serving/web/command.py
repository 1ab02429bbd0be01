"""`digits web`: serves the page until a signal ends it."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import webbrowser

from serving.client.config import ClientConfig
from serving.client.target import check_target
from serving.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from serving.web.app import build_app
from serving.web.kept_pictures import KeptPictures
from serving.web.limits import build_server


def run(args: argparse.Namespace, config: ClientConfig) -> int:
    """Serve until SIGTERM or SIGINT, and let pending requests finish.

    Returns:
        The exit status: 0 after a signal, 1 if it cannot listen on the address, 2 for an invalid target or folder.
    """
    try:
        kept = KeptPictures(args.collect) if args.collect else None
    except OSError as error:
        print(f"error: --collect {args.collect}: pictures cannot be kept there: {error}", file=sys.stderr)
        return EXIT_USAGE
    try:
        app = build_app(
            check_target(args.target),
            config,
            min_confidence=args.min_confidence,
            allowed_hosts={args.host, *args.allowed_host},
            kept=kept,
        )
        listener = _listen(args.host, args.port)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"error: cannot listen on {args.host} port {args.port}: {error}", file=sys.stderr)
        return EXIT_FAILED
    server = build_server(app)
    # uvicorn drains on these signals and then raises them again for the handlers set before: these do nothing.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    host = f"[{args.host}]" if ":" in args.host else args.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    print(f"draw on {url}", flush=True)
    if args.open and _has_browser():
        webbrowser.open(url)
    server.run(sockets=[listener])
    return EXIT_OK


def _has_browser() -> bool:
    # Without a display, Linux would start a browser inside the terminal.
    return sys.platform != "linux" or any(map(os.environ.get, ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")))


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address, family=family, backlog=1024)
