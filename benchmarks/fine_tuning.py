"""Measure what fine-tuning on 100 pictures of one writer gains, what it costs on MNIST, and how long it takes.

    $ python -m benchmarks.fine_tuning --data-dir mnist/

The folder holds MNIST's four files. The preset `fast` is trained once. Then the README's command for fine-tuning trains it
further, `--init-from RUN --extra-data FOLDER --epochs 0.5 --learning-rate 1e-3`, for each writer of
benchmarks/corrections.py, who draws 10 pictures of each digit to learn from, and 1,000 new digits to score.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.corrections import NEW_DIGITS, USUAL, WRITERS, draw_writer, run_trainer
from percent import percent
from testbed.report import machine, write_json
from trainer.config import resolve
from trainer.data.split import Split

PICTURES = 100
FINE_TUNING = ("--epochs", 0.5, "--learning-rate", 1e-3)


def main() -> None:
    """Print one line per writer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of MNIST's four files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    args = parser.parse_args()
    from trainer.data.load import read_dataset

    _, test = read_dataset("idx", args.data_dir)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        artifacts = Path(folder)
        train = ("train", "--preset", "fast", "--dataset", "idx", "--data-dir", args.data_dir, "--artifacts", artifacts)
        run_trainer(*train, "--run", "fast", "--no-publish")
        print(f"{machine()}\n\nwriter{'':18}new digits: before   after   MNIST: before     after   seconds", flush=True)
        for seed, (name, odd) in enumerate(WRITERS.items()):
            figures[name] = _measure(train, artifacts, {**USUAL, **odd}, seed, test)
            before, after, mnist_before, mnist_after, seconds = figures[name].values()
            print(
                f"{name:<24}{percent(before, 1):>18}  {percent(after, 1):>6}"
                f"{percent(mnist_before):>16}  {percent(mnist_after):>8}{seconds:10.0f}",
                flush=True,
            )
    write_json(args.json, machine=machine(), writers=figures)


def _measure(
    train: tuple[object, ...], artifacts: Path, styles: dict[int, str], seed: int, test: Split
) -> dict[str, float]:
    """Accuracy on the writer's new digits and on MNIST, before and after, and the seconds of the whole command."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    run = f"writer-{seed}"
    pictures = _write(draw_writer(styles, PICTURES, generator), artifacts / "pictures" / run)
    began = time.monotonic()
    run_trainer(*train, "--run", run, "--init-from", "fast", "--extra-data", pictures, *FINE_TUNING, "--no-publish")
    seconds = time.monotonic() - began
    new = draw_writer(styles, NEW_DIGITS, generator)
    return {
        "new_before": _accuracy(artifacts, "fast", new),
        "new_after": _accuracy(artifacts, run, new),
        "mnist_before": _accuracy(artifacts, "fast", test),
        "mnist_after": _accuracy(artifacts, run, test),
        "seconds": seconds,
    }


def _write(split: Split, folder: Path) -> Path:
    """Write the digits as pictures, black on white, in folders named 0 to 9."""
    for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - np.pad(image, 6)).save(path)
    return folder


def _accuracy(artifacts: Path, run: str, split: Split) -> float:
    from trainer.evaluation.predict import compile_predict
    from trainer.initial_weights import read_initial_model

    model = read_initial_model(resolve("fast", flags={"artifacts": artifacts, "init_from": run}))
    return float((compile_predict(model)(split.images).argmax(axis=1) == split.labels).mean())


if __name__ == "__main__":
    main()
