"""`digits status`: the state of each version of the model."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from serving.client.client import DigitClient
from serving.client.config import ClientConfig
from serving.commands.output import print_json, print_table
from serving.exit_codes import EXIT_OK


def run(args: argparse.Namespace, config: ClientConfig) -> int:
    """Print one line per version."""
    with DigitClient(args.target, config) as client:
        statuses = client.status(config.version)
    if args.json:
        print_json([asdict(status) for status in statuses])
        return EXIT_OK
    rows = [(status.version, status.state, f"{status.error_code} {status.error_message}") for status in statuses]
    print_table(("version", "state", "status"), rows)
    return EXIT_OK
