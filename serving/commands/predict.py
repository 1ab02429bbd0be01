"""`python -m serving predict`: prints the digits in picture and array files.

inputs.py -> file_predictions.py -> table or JSON, and with --show contact_sheet.py
"""

from __future__ import annotations

import argparse
from typing import Any

from serving.client.client import DigitClient
from serving.client.config import ClientConfig
from serving.commands.file_predictions import FilePrediction, predict_files
from serving.commands.output import print_json, print_table
from serving.exit_codes import EXIT_OK


def run(args: argparse.Namespace, config: ClientConfig) -> int:
    """Prints one line per picture, and per image of an array."""
    with DigitClient(args.target, config) as client:
        predictions = predict_files(args.files, client, min_confidence=args.min_confidence)
    if args.show:
        from serving.commands.contact_sheet import write_contact_sheet

        write_contact_sheet(args.show, predictions)
    if args.json:
        print_json([_json_fields(one) for one in predictions])
        return EXIT_OK
    rows = [
        (one.name, one.digit_text, f"{one.prediction.confidence:.1%}", one.prediction.version) for one in predictions
    ]
    print_table(("file", "digit", "confidence", "version"), rows)
    return EXIT_OK


def _json_fields(one: FilePrediction) -> dict[str, Any]:
    return {
        "file": one.file,
        "index": one.index,
        "digit": one.prediction.digit,
        "confidence": one.prediction.confidence,
        "sure": one.is_sure,
        "probabilities": one.prediction.probabilities.tolist(),
        "version": one.prediction.version,
    }
