"""`digits predict`: prints the digits in picture and array files.

inputs.py -> file_predictions.py -> table or JSON, and with --show contact_sheet.py
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from percent import confidence_percent
from serving.client.client import DigitClient
from serving.client.config import ClientConfig
from serving.commands.file_predictions import FilePrediction, predict_files
from serving.commands.output import print_json, print_table, printable
from serving.exit_codes import EXIT_OK, EXIT_USAGE


def run(args: argparse.Namespace, config: ClientConfig) -> int:
    """Print one line per picture, and per image of an array; name the pictures that the model cannot use."""
    with DigitClient(args.target, config) as client:
        predictions = predict_files(args.files, client, min_confidence=args.min_confidence)
    usable = [one for one in predictions if not one.problem]
    if args.show:
        from serving.commands.contact_sheet import write_contact_sheet

        write_contact_sheet(args.show, usable)
        print(f"wrote {printable(str(args.show))}", file=sys.stderr)
    if args.json:
        print_json([_json_fields(one) for one in predictions])
    elif usable:
        rows = [
            (one.name, one.digit_text, confidence_percent(one.prediction.confidence), one.prediction.version)
            for one in usable
        ]
        print_table(("file", "digit", "confidence", "version"), rows)
    for one in predictions:
        if one.problem:
            print(f"error: {printable(f'{one.name}: this picture {one.problem}')}", file=sys.stderr)
    return EXIT_OK if len(usable) == len(predictions) else EXIT_USAGE


def _json_fields(one: FilePrediction) -> dict[str, Any]:
    return {
        "file": one.file,
        "index": one.index,
        "problem": one.problem or None,
        "digit": None if one.problem else one.prediction.digit,
        "confidence": one.prediction.confidence,
        "sure": one.is_sure,
        "found": None if one.problem else one.found,
        "probabilities": one.prediction.probabilities.tolist(),
        "version": one.prediction.version,
    }
