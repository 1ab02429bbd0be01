"""What `python -m serving` does after parsing: ask, print, and say by the exit status how it went."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from serving.client.client import DigitClient
from serving.client.config import ClientConfig
from serving.client.errors import ServingError
from serving.client.results import TensorSpec
from serving.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_USAGE

if TYPE_CHECKING:
    from serving.commands.predict import Answer


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
    """One line per picture, and per image of an array."""
    from serving.commands.predict import ask_about

    with DigitClient(args.target, config) as client:
        answers = ask_about(args.files, client)
    sure = [answer.prediction.confidence >= args.min_confidence for answer in answers]
    digits = [
        str(answer.prediction.digit) if sure else f"not sure ({answer.prediction.digit}?)"
        for answer, sure in zip(answers, sure, strict=True)
    ]
    if args.show:
        from serving.commands.contact_sheet import write_sheet

        write_sheet(args.show, [*zip(answers, digits, strict=True)])
    if args.json:
        _print_json([_answer_fields(answer, sure) for answer, sure in zip(answers, sure, strict=True)])
        return EXIT_OK
    rows = [
        (answer.name, digit, f"{answer.prediction.confidence:.1%}", answer.prediction.version)
        for answer, digit in zip(answers, digits, strict=True)
    ]
    _print_table(("file", "digit", "confidence", "version"), rows)
    return EXIT_OK


def _answer_fields(answer: Answer, sure: bool) -> dict[str, Any]:
    return {
        "file": answer.file,
        "index": answer.index,
        "digit": answer.prediction.digit,
        "confidence": answer.prediction.confidence,
        "sure": sure,
        "probabilities": answer.prediction.probabilities.tolist(),
        "version": answer.prediction.version,
    }


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
    from serving.commands.bench import Load, measure

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
