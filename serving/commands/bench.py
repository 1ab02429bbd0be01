"""`digits bench`: throughput and latency of a server under one load after another."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from serving.client.config import ClientConfig
from serving.commands.load import Load, measure
from serving.commands.output import print_json, print_table
from serving.exit_codes import EXIT_FAILED, EXIT_OK


def run(args: argparse.Namespace, config: ClientConfig) -> int:
    """Print one line per load; fail if any measured request failed or could not be sent."""
    timing = {"batch": args.batch, "seconds": args.seconds, "warmup_seconds": args.warmup}
    if args.rate:
        loads = [Load(rate=rate, **timing) for rate in args.rate]
    else:
        loads = [Load(concurrency=concurrency, **timing) for concurrency in args.concurrency]
    reports = [measure(args.target, config, load, progress=sys.stderr) for load in loads]
    if args.json:
        print_json([asdict(report) for report in reports])
    else:
        print_table(reports[0].columns(), [report.row() for report in reports])
    return EXIT_FAILED if any(report.errors or report.not_sent for report in reports) else EXIT_OK
