"""`digits metadata`: the signatures of the served model."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from serving.client.client import DigitClient
from serving.client.config import ClientConfig
from serving.client.results import TensorSpec
from serving.commands.output import print_json, print_table
from serving.exit_codes import EXIT_OK


def run(args: argparse.Namespace, config: ClientConfig) -> int:
    """Print one line per tensor of each signature."""
    with DigitClient(args.target, config) as client:
        metadata = client.metadata()
    if args.json:
        print_json(asdict(metadata))
        return EXIT_OK
    print(f"{metadata.name} version {metadata.version}")
    rows = [
        (name, kind, tensor, spec.dtype, _format_shape(spec))
        for name, signature in metadata.signatures.items()
        for kind, tensors in (("input", signature.inputs), ("output", signature.outputs))
        for tensor, spec in tensors.items()
    ]
    print_table(("signature", "", "tensor", "type", "shape"), rows)
    return EXIT_OK


def _format_shape(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "any"
    return f"[{', '.join('N' if size is None else str(size) for size in spec.shape)}]"
