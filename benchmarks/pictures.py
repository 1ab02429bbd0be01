"""Measure how well a published version reads pictures, through the Session path that TensorFlow Serving uses.

    $ python -m benchmarks.pictures artifacts/models/digits/<version> --data-dir mnist/

prints the machine, then the accuracy on: MNIST's test digits as arrays and as 28x28 PNG files; optdigits' 8x8 digits,
enlarged; photographs of test digits (testbed/photographs.py), also per nuisance, with the shares of the wrong and of the
right predictions that are "not sure"; drawn digits in other scenes (testbed/scenes.py). Then come the pictures that show
no digit or several (testbed/counts.py), and how often one digit was counted as none or several. Last comes the time of one
500x500 picture and of batches.

The preparation was developed with training digits and other seeds. The last 360 of optdigits were only scored.
"""

import argparse
import io
import itertools
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from percent import percent
from serving.client.config import MIN_CONFIDENCE
from serving.contract import CONFIDENCE, DIGIT, ENCODED, FOUND, IMAGES, NORMALIZED, PICTURES, SIGNATURE
from testbed.counts import KINDS, pictures_of_several, pictures_without_digit
from testbed.photographs import photographs
from testbed.report import machine, write_json
from testbed.scenes import SCENES, scenes

SEED = 2026
"""Seed of the photographs and scenes that are scored; develop with others."""

FIGURE_COLUMNS, FIGURE_ROWS = 5, 4

BATCH = 50
"""Pictures per request, where time is not measured."""


def main() -> None:
    """Print each table as soon as it is ready."""
    args = _parse_arguments()
    from serving.local_server.model.servable import Servable
    from trainer.data.idx import read_idx_folder

    servable = Servable(args.version, intra_op_threads=args.intra_op_threads)
    _, test = read_idx_folder(args.data_dir)
    print(f"{machine()}\n{args.version}\n", flush=True)
    count = min(args.photographs, len(test))
    report: dict[str, Any] = {}
    as_arrays = _answers(servable, SIGNATURE, IMAGES, test.images)
    as_files = _answers(servable, PICTURES, ENCODED, [_file(image) for image in test.images])
    report["arrays"], report["files"] = _share(as_arrays, test.labels), _share(as_files, test.labels)
    print(f"MNIST's test digits as arrays    {percent(report['arrays']):>8}")
    print(f"the same as 28x28 PNG files      {percent(report['files']):>8}\n", flush=True)

    report["optdigits"] = _print_optdigits(servable)

    first: list[bytes] = []
    nuisances: list[dict[str, str]] = []
    outputs = []
    taken = photographs(test.images[:count], test.labels[:count], SEED)
    while some := list(itertools.islice(taken, BATCH)):
        outputs.append(_run(servable, PICTURES, ENCODED, [one.encoded for one in some]))
        nuisances += [one.nuisances for one in some]
        first = first or [one.encoded for one in some]
        so_far = np.concatenate([output[DIGIT] for output in outputs])
        right = so_far == test.labels[: len(so_far)]
        print(f"\r{len(right)} photographs, {percent(right.mean())}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    report["photographs"] = float(right.mean())
    print(f"{count} photographs of test digits  {percent(report['photographs']):>8}")
    report["nuisances"] = _print_nuisances(nuisances, right)
    confidence, found = (np.concatenate([output[name] for output in outputs]) for name in (CONFIDENCE, FOUND))
    report["not sure"] = _print_not_sure(right, np.where(found == 1, confidence, 0.0))
    report["scenes"] = _print_scenes(servable)
    report["counts"] = _print_counts(servable, found, test.images, args.counts)

    if args.figure:
        _draw(servable, first[: FIGURE_COLUMNS * FIGURE_ROWS]).save(args.figure, optimize=True)

    report["milliseconds"] = _print_times(servable)
    write_json(args.json, machine=machine(), version=str(args.version), **report)


def _answers(servable: Any, signature: str, name: str, values: Sequence, output: str = DIGIT) -> np.ndarray:
    batches = (values[start : start + BATCH] for start in range(0, len(values), BATCH))
    return np.concatenate([_run(servable, signature, name, batch)[output] for batch in batches])


def _run(servable: Any, signature: str, name: str, values: Sequence) -> dict[str, np.ndarray]:
    """Return all outputs of one request."""
    dtype = object if name == ENCODED else None
    return servable.run(servable.signature(signature), {name: np.array(values, dtype)})


def _draw(servable: Any, files: list[bytes], tile: int = 84) -> Image.Image:
    """Draw photographs, each beside the image that the network saw."""
    seen = servable.run(servable.signature(PICTURES), {ENCODED: np.array(files, object)})[NORMALIZED]
    sheet = Image.new("RGB", (FIGURE_COLUMNS * (2 * tile + 8), FIGURE_ROWS * (tile + 8)), "white")
    for position, (file, image) in enumerate(zip(files, seen, strict=True)):
        row, column = divmod(position, FIGURE_COLUMNS)
        left, top = column * (2 * tile + 8), row * (tile + 8)
        picture = Image.open(io.BytesIO(file)).convert("RGB")
        picture.thumbnail((tile, tile))
        sheet.paste(picture, (left + (tile - picture.width) // 2, top + (tile - picture.height) // 2))
        sheet.paste(Image.fromarray(image).resize((tile, tile), Image.Resampling.NEAREST), (left + tile, top))
    return sheet


def _share(answers: np.ndarray, labels: np.ndarray) -> float:
    return float((answers == labels).mean())


def _print_nuisances(nuisances: list[dict[str, str]], right: np.ndarray) -> dict[str, float]:
    outcomes: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for kinds, is_right in zip(nuisances, right.tolist(), strict=True):
        for name, kind in kinds.items():
            outcomes[name, kind].append(is_right)
    shares, width = {}, max(len(kind) for _, kind in outcomes) + 2
    for (name, kind), group in sorted(outcomes.items()):
        shares[f"{name}: {kind}"] = statistics.mean(group)
        print(f"  {name:30}{kind:{width}}{len(group):6} {percent(statistics.mean(group)):>8}")
    print(flush=True)
    return shares


def _print_not_sure(right: np.ndarray, confidence: np.ndarray) -> dict[str, list[float]]:
    """Print the shares of wrong and of right predictions below the default confidence, and below others for comparison.

    Args:
        right: bool [N].
        confidence: float [N]; 0 where not one digit was found, since the client is not sure then.
    """
    # With the threshold of each of the others, at most so many of the right predictions are not sure.
    least = {
        percent(share, 1): float(np.quantile(confidence[right], share, method="lower"))
        for share in (0.005, 0.01, 0.02, 0.05)
    }
    shares = {}
    print("not sure          of the wrong  of the right")
    for name, threshold in {"the default": MIN_CONFIDENCE, **least}.items():
        unsure = confidence < threshold
        wrong = float(unsure[~right].mean()) if not right.all() else 1.0
        shares[name] = [threshold, wrong, float(unsure[right].mean())]
        note = "   (the default)" if name == "the default" else ""
        print(f"below {threshold:<10.3f}{percent(wrong, 1):>14}{percent(shares[name][2]):>14}{note}")
    print(flush=True)
    return shares


def _print_counts(servable: Any, found: np.ndarray, images: np.ndarray, count: int) -> dict[str, float]:
    """Print how often `found` is right; it has one value per photograph of one digit."""
    shares = {
        "one digit called none": float((found == 0).mean()),
        "one digit called several": float((found > 1).mean()),
    }
    none = list(pictures_without_digit(SEED, count))
    counted = _answers(servable, PICTURES, ENCODED, [one.encoded for one in none], FOUND)
    shares["no digit called none"] = float((counted == 0).mean())
    for kind in KINDS:
        of_kind = np.array([one.nuisances["kind"] == kind for one in none])
        shares[f"  {kind}"] = float((counted[of_kind] == 0).mean())
    several = list(pictures_of_several(images, SEED, count))
    counted = _answers(servable, PICTURES, ENCODED, [one.encoded for one in several], FOUND)
    shares["several digits called several"] = float((counted > 1).mean())
    shares["  counted exactly"] = float((counted == [one.label for one in several]).mean())
    for name, share in shares.items():
        print(f"{name:32}{percent(share):>8}")
    print(flush=True)
    return shares


def _print_scenes(servable: Any) -> dict[str, float]:
    taken = ((one, _answers(servable, PICTURES, ENCODED, [one.encoded])[0]) for one in scenes(SEED))
    names, right = zip(*((one.nuisances, answer == one.label) for one, answer in taken), strict=True)
    print(f"drawn digits in {len(SCENES)} scenes: {sum(right)} of {len(right)}")
    return _print_nuisances(list(names), np.array(right))


def _print_optdigits(servable: Any) -> dict[str, float]:
    from sklearn.datasets import load_digits

    from trainer.data.optdigits import TEST_SIZE

    digits = load_digits()
    shares = {}
    for name, side, method, light_on_dark in (
        ("nearest, light on dark", 320, Image.Resampling.NEAREST, True),
        ("bicubic, light on dark", 320, Image.Resampling.BICUBIC, True),
        ("bilinear, dark on light", 200, Image.Resampling.BILINEAR, False),
    ):
        files = []
        for image in digits.images:
            pixels = np.rint(image * (255 / 16)).astype(np.uint8)
            enlarged = Image.fromarray(pixels if light_on_dark else 255 - pixels).resize((side, side), method)
            files.append(_file(np.asarray(enlarged)))
        answers = _answers(servable, PICTURES, ENCODED, files)
        shares[name] = _share(answers, digits.target)
        shares[f"{name}, test"] = _share(answers[-TEST_SIZE:], digits.target[-TEST_SIZE:])
        print(
            f"optdigits, 8x8 to {side}x{side}, {name:25} {percent(shares[name]):>8}, "
            f"of the last {TEST_SIZE} {percent(shares[f'{name}, test']):>8}",
            flush=True,
        )
    return shares


def _print_times(servable: Any, rounds: int = 30) -> dict[str, float]:
    rng = np.random.default_rng(0)
    digit = np.zeros((28, 28), np.uint8)
    digit[4:24, 13:16] = 255
    taken = next(one for one in photographs(np.stack([digit] * 1), np.array([1]), 0))
    picture = np.asarray(Image.open(io.BytesIO(taken.encoded)).convert("RGB").resize((500, 500)))
    picture = (picture + rng.normal(0, 3, picture.shape)).clip(0, 255).astype(np.uint8)
    run, times = servable.signature(PICTURES), {}
    print()
    for kind, options in (("JPEG", {"quality": 85}), ("PNG", {})):
        for size in (1, 8, 32):
            batch = np.array([_file(picture, kind, **options)] * size, object)
            taken_seconds = []
            for _ in range(max(5, rounds // size)):
                started = time.perf_counter()
                servable.run(run, {ENCODED: batch})
                taken_seconds.append(time.perf_counter() - started)
            times[f"{kind}, {size}"] = 1000 * statistics.median(taken_seconds[2:]) / size
            print(f"500x500 {kind:4}, batch of {size:3}: {times[f'{kind}, {size}']:7.1f} ms per picture", flush=True)
    return times


def _file(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", type=Path, help="folder of a published version")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of MNIST's four files")
    parser.add_argument(
        "--intra-op-threads", type=int, default=0, help="threads inside one operation; 0 = one per core, the default"
    )
    parser.add_argument("--photographs", type=int, default=5000, help="how many (default: %(default)s)")
    parser.add_argument(
        "--counts", type=int, default=500, help="pictures of no digit and of several (default: %(default)s)"
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw photographs beside what the network saw")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
