"""Measure how well a published version reads handwriting that MNIST does not have.

    $ python -m benchmarks.hands artifacts/models/digits/<version>... --data-dir hands/

The folder holds `*.npz` files with `images` (uint8 [N, height, width], 0 = paper, 255 = ink) and `labels`. Each image is
sent as a PNG file, black on white, without and with a margin. The table has the accuracy, also per digit, and the share of
predictions below the default confidence among the wrong and among the right ones. Several versions, such as those of some
seeds, get a table each, and one for the means. These sets are never trained on.
"""

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from percent import percent
from serving.client.config import MIN_CONFIDENCE
from serving.contract import CLASSES, CONFIDENCE, DIGIT, ENCODED, PICTURES
from testbed.report import machine, write_json

if TYPE_CHECKING:
    from serving.local_server.model.servable import Servable

BATCH = 50


def main() -> None:
    """Print a table per version, with one line per set and margin."""
    args = _parse_arguments()
    from serving.local_server.model.servable import Servable

    sets: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}
    for path in sorted(args.data_dir.glob("*.npz")):
        with np.load(path) as arrays:
            images, labels = arrays["images"][: args.count], arrays["labels"][: args.count]
        sets |= {path.stem: (images, labels, 0), f"{path.stem}, margin": (images, labels, images.shape[1] // 4)}
    print(machine(), flush=True)
    report: dict[str, dict[str, Any]] = {}
    predictions: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in sets}
    for version in args.versions:
        _print_head(str(version))
        servable = Servable(version)
        of_version = {}
        for name, (images, labels, margin) in sets.items():
            predictions[name].append((*_predict(servable, images, margin), labels))
            of_version[name] = _print_set(name, *predictions[name][-1])
        servable.close()
        report[str(version)] = of_version
    if len(args.versions) > 1:
        _print_head(f"means of {len(args.versions)} versions")
        for name, of_versions in predictions.items():
            _print_set(name, *map(np.concatenate, zip(*of_versions, strict=True)))
    write_json(args.json, machine=machine(), versions=report)


def _print_head(name: str) -> None:
    print(f"\n{name}\n\nset{'':21}count  accuracy  not sure: wrong  right   per digit, 0 to 9", flush=True)


def _predict(servable: "Servable", images: np.ndarray, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Digit and confidence of each image."""
    run = servable.signature(PICTURES)
    room = ((0, 0), (margin, margin), (margin, margin))
    files = [_png(255 - image) for image in np.pad(images, room)]
    batches = [np.array(files[start : start + BATCH], object) for start in range(0, len(files), BATCH)]
    outputs = [servable.run(run, {ENCODED: batch}) for batch in batches]
    return tuple(np.concatenate([output[name] for output in outputs]) for name in (DIGIT, CONFIDENCE))  # type: ignore[return-value]


def _print_set(name: str, digits: np.ndarray, confidence: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    right, unsure = digits == labels, confidence < MIN_CONFIDENCE
    per_digit = [_mean(right[labels == digit]) for digit in range(CLASSES)]
    figures: dict[str, Any] = {
        "count": len(labels),
        "accuracy": _mean(right),
        "not_sure_of_wrong": _mean(unsure[~right]),
        "not_sure_of_right": _mean(unsure[right]),
        "per_digit": per_digit,
    }
    shares = "  ".join(percent(share, 1) for share in per_digit)
    print(
        f"{name:24}{len(labels):5}  {percent(figures['accuracy']):>8}  {percent(figures['not_sure_of_wrong'], 1):>15}  "
        f"{percent(figures['not_sure_of_right'], 1):>5}   {shares}",
        flush=True,
    )
    return figures


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", type=Path, metavar="version", help="folder of a published version")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--count", type=int, help="so many images of each set (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
