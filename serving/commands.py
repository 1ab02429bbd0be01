"""What `python -m serving` does after parsing: ask, print, and say by the exit status how it went."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from serving.client import DigitClient
from serving.config import ClientConfig
from serving.errors import ServingError
from serving.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from serving.results import TensorSpec


def run(args: argparse.Namespace, config: ClientConfig) -> int:
    """Runs `args.command` and returns the exit status. Answers go to stdout, what went wrong to stderr."""
    command = {"predict": predict, "status": status, "metadata": metadata, "wait": wait, "bench": bench}[args.command]
    try:
        return command(args, config)
    except ServingError as error:
        return _fail(error, EXIT_FAILED)
    except (
        BrokenPipeError
    ):  # the reader has seen enough, as `| head` does; nothing more may be written, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (OSError, ValueError) as error:
        return _fail(error, EXIT_USAGE)


def predict(args: argparse.Namespace, config: ClientConfig) -> int:
    """Every file is read before the first request, so that a bad one costs nothing; then they go out as one input."""
    import numpy as np

    from serving.inputs import read_images

    inputs = [read_images(path) for path in args.files]
    with DigitClient(args.target, config) as client:
        predictions = client.predict(np.concatenate(inputs))
    places = [
        (str(path), index) for path, images in zip(args.files, inputs, strict=True) for index in range(len(images))
    ]
    if args.json:
        _print_json(
            [
                {
                    "file": file,
                    "index": index,
                    "digit": prediction.digit,
                    "confidence": prediction.confidence,
                    "probabilities": prediction.probabilities.tolist(),
                    "version": prediction.version,
                }
                for (file, index), prediction in zip(places, predictions, strict=True)
            ]
        )
        return EXIT_OK
    lengths = {str(path): len(images) for path, images in zip(args.files, inputs, strict=True)}
    rows = [
        (f"{file}[{index}]" if lengths[file] > 1 else file, answer.digit, f"{answer.confidence:.1%}", answer.version)
        for (file, index), answer in zip(places, predictions, strict=True)
    ]
    _print_table(("file", "digit", "confidence", "version"), rows)
    return EXIT_OK


def status(args: argparse.Namespace, config: ClientConfig) -> int:
    """One line per version."""
    with DigitClient(args.target, config) as client:
        statuses = client.status(config.version, timeout_seconds=args.timeout)
    if args.json:
        _print_json([asdict(status) for status in statuses])
        return EXIT_OK
    rows = [(status.version, status.state, f"{status.error_code} {status.error_message}") for status in statuses]
    _print_table(("version", "state", "status"), rows)
    return EXIT_OK


def metadata(args: argparse.Namespace, config: ClientConfig) -> int:
    """One line per tensor of each signature."""
    with DigitClient(args.target, config) as client:
        found = client.metadata()
    if args.json:
        _print_json(asdict(found))
        return EXIT_OK
    print(f"{found.name} version {found.version}")
    rows = [
        (name, kind, tensor, spec.dtype, _format_shape(spec))
        for name, signature in found.signatures.items()
        for kind, tensors in (("input", signature.inputs), ("output", signature.outputs))
        for tensor, spec in tensors.items()
    ]
    _print_table(("signature", "", "tensor", "type", "shape"), rows)
    return EXIT_OK


def wait(args: argparse.Namespace, config: ClientConfig) -> int:
    """Prints the version that became AVAILABLE."""
    with DigitClient(args.target, config) as client:
        version = client.wait_until_available(config.version, timeout_seconds=args.timeout)
    _print_json({"version": version}) if args.json else print(version)
    return EXIT_OK


def bench(args: argparse.Namespace, config: ClientConfig) -> int:
    """One line per load; fails if any measured request did."""
    from serving.bench import Load, measure

    timing = {"batch": args.batch, "seconds": args.seconds, "warmup_seconds": args.warmup}
    if args.rate:
        loads = [Load(rate=rate, **timing) for rate in args.rate]
    else:
        loads = [Load(concurrency=concurrency, **timing) for concurrency in args.concurrency]
    reports = [measure(args.target, config, load, progress=sys.stderr) for load in loads]
    if args.json:
        _print_json([asdict(report) for report in reports])
    else:
        _print_table(reports[0].columns(), [report.row() for report in reports])
    return EXIT_FAILED if any(report.errors for report in reports) else EXIT_OK


def _fail(error: Exception, exit_status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return exit_status


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = [tuple(map(str, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _format_shape(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "any"
    return f"[{', '.join('N' if size is None else str(size) for size in spec.shape)}]"
