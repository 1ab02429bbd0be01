"""`digits wait`: waits until a version is AVAILABLE."""

from __future__ import annotations

import argparse

from serving.client.client import DigitClient
from serving.client.config import ClientConfig
from serving.commands.output import print_json
from serving.exit_codes import EXIT_OK


def run(args: argparse.Namespace, config: ClientConfig) -> int:
    """Print the version that became AVAILABLE."""
    with DigitClient(args.target, config) as client:
        version = client.wait_until_available(config.version, timeout_seconds=args.timeout)
    if args.json:
        print_json({"version": version})
    else:
        print(version)
    return EXIT_OK
