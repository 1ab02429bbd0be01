"""Measure what 40 corrections teach a model about handwriting that it predicts badly, and what they cost on MNIST.

    $ python -m benchmarks.corrections --data-dir mnist/

The folder holds MNIST's four files. A model is trained on MNIST alone; a writer is a pen (trainer/data/pen.py) that draws
each digit in one style, some of them odd. It draws until the model has predicted 40 digits wrongly. These are corrected.
`python -m trainer learn` trains with them. 1,000 new digits of the writer and MNIST's test split score both versions.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from percent import percent
from serving.contract import CLASSES
from testbed.report import machine, write_json
from trainer.data.pen import draw_style
from trainer.data.skeletons import STYLES
from trainer.data.split import Split

CORRECTIONS = 40
NEW_DIGITS = 1000

WRITERS = {
    "slashes and upstrokes": {
        0: "long slash",
        1: "upstroke from the base line",
        4: "open, one stroke, round at the left",
        9: "open top, straight stem",
    },
    "bases": {
        0: "long slash",
        1: "curved upstroke",
        7: "waved and barred, foot bent to the right",
        9: "top stroke beyond the stem, base like an s",
    },
    "wide feet": {
        0: "long slash",
        1: "wide upstroke and foot",
        4: "open, round at the foot of the left side",
        9: "open top, wide base",
    },
}
"""The odd styles of each writer. The settings of `learn` were chosen with the first two, not with the third."""

USUAL = {0: "oval", 1: "stem alone", 2: "plain", 3: "round", 4: "closed, one stroke", 5: "one stroke", 6: "plain",
         7: "plain", 8: "begun at the top", 9: "straight stem"}  # fmt: skip
"""The styles of all other digits: MNIST has them too."""


def main() -> None:
    """Print one line per writer."""
    args = _parse_arguments()
    from trainer.data.load import read_dataset

    _, test = read_dataset("idx", args.data_dir)
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base")
        data = ["--dataset", "idx", "--data-dir", args.data_dir, "--pen-weight", 0]
        run_trainer("train", "--preset", args.preset, *data, "--artifacts", base)
        print(f"{machine()}\n{args.preset}, trained on MNIST alone\n")
        print(f"writer{'':18}new digits: before   after   MNIST: before     after   seconds", flush=True)
        for seed, (name, odd) in enumerate(WRITERS.items()):
            artifacts = Path(folder, f"writer-{seed}")
            shutil.copytree(base, artifacts)
            report[name] = _measure(artifacts, {**USUAL, **odd}, seed, test, args.flags)
            before, after, mnist_before, mnist_after, seconds = report[name].values()
            print(
                f"{name:<24}{percent(before, 1):>18}  {percent(after, 1):>6}"
                f"{percent(mnist_before):>16}  {percent(mnist_after):>8}{seconds:10.0f}",
                flush=True,
            )
    write_json(args.json, machine=machine(), preset=args.preset, writers=report)


def _measure(artifacts: Path, styles: dict[int, str], seed: int, test: Split, flags: list[str]) -> dict[str, float]:
    """Accuracy on the writer's new digits and on MNIST, before and after learning, and the seconds that it took."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    (before,) = (artifacts / "models" / "digits").glob("[0-9]*")
    drawn = draw_writer(styles, NEW_DIGITS, generator)
    wrong = np.flatnonzero(_predict(before, drawn) != drawn.labels)[:CORRECTIONS]
    assert len(wrong) == CORRECTIONS, f"only {len(wrong)} of the drawn digits are predicted wrongly"
    for number in wrong:
        path = artifacts / "corrections" / str(drawn.labels[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - np.pad(drawn.images[number], 6)).save(path)
    begin = time.monotonic()
    run_trainer("learn", artifacts / "corrections", "--artifacts", artifacts, *flags)
    seconds = time.monotonic() - begin
    after = max((artifacts / "models" / "digits").glob("[0-9]*"))
    new = draw_writer(styles, NEW_DIGITS, generator)
    scores = {
        f"{name}, {when}": float((_predict(version, split) == split.labels).mean())
        for name, split in (("new digits", new), ("MNIST", test))
        for when, version in (("before", before), ("after", after))
    }
    return {**scores, "seconds": seconds}


def draw_writer(styles: dict[int, str], count: int, generator: np.random.Generator) -> Split:
    """Digits of the writer in random order, as many of each."""
    chosen = [next(style for style in STYLES[digit] if style.name == styles[digit]) for digit in range(CLASSES)]
    images = np.concatenate([draw_style(style, count // CLASSES, generator) for style in chosen])
    labels = np.repeat(np.arange(CLASSES, dtype=np.uint8), count // CLASSES)
    order = generator.permutation(len(labels))
    return Split(images[order], labels[order])


def _predict(version: Path, split: Split) -> np.ndarray:
    from trainer.publishing.gate import predict_version

    return predict_version(version, split.images).argmax(axis=1)


def run_trainer(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of MNIST's four files")
    parser.add_argument("--preset", default="fast", help="of the model that learns (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("flags", nargs="*", help="flags of `learn`, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
