"""Train the network that counts digits and the regression that estimates `doubt`; write their weights into the trainer.

    $ python -m testbed.presence --data-dir mnist/     # an hour; trainer/pictures/presence.npz

It learns from rendered pictures of MNIST's training digits and of the pen's, never from those that benchmarks score.
"""

import argparse
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from testbed.counts import pictures_of_several, pictures_without_digit
from testbed.photographs import photograph, photographs

if TYPE_CHECKING:
    from trainer.data.split import Split

NONE_PICTURES = (31338, 4800), (5150, 2400)
"""Seed and number of the pictures without a digit. Benchmarks have other seeds."""

SINGLE_SEED, SINGLE_PICTURES = 31337, 3000
PHOTOGRAPHS_SEEDS, PHOTOGRAPHS = (4711, 4713), 2000
"""Two photographs of each of these many digits that presets hold back for validation, besides the single digits above."""

SEVERAL_PICTURES = (31339, 150, (4, 14)), (31340, 350, (1, 6)), (31341, 250, (4, 14)), (5151, 600, (4, 14))
"""Seed, number and gaps of the pictures of several digits."""

DOUBT_SEEDS, DOUBT_PHOTOGRAPHS = (6151, 6152), 9_500
"""Photographs of the first so many training digits with the first seed, and of as many from 20,000 on with the second."""

MIN_LIKENESS = 0.75
"""An image that is less like the digit in the photograph does not show it: the network of `accurate` reads two thirds of
these wrong, and 1 % of the others."""

LIKENESS_SIGMA, LIKENESS_SHIFT = 1.2, 2
"""Pixels by which both images are blurred and by which one may be moved before they are compared."""

DOUBT_REGULARIZATION = 0.01
"""scikit-learn's `C`."""

DIGITS, VALIDATION_DIGITS = 40_000, 5000
"""So many of MNIST's training digits are drawn from, and so many do presets hold back."""

HIDDEN, WEIGHT_DECAY, EPOCHS = 96, 0.1, 80


def main() -> None:
    """Render, prepare, train and write."""
    args = _parse_arguments()
    from trainer.data.divide import hold_back
    from trainer.data.idx import read_idx_folder
    from trainer.pictures.presence import WEIGHTS_FILE

    train, _ = read_idx_folder(args.data_dir)
    pictures = _pictures(train.images[:DIGITS], hold_back(train, VALIDATION_DIGITS)[1])
    weights = fit(*_prepared(pictures))
    weights |= fit_doubt(*_prepared(_photographs_with_digit(train)))
    np.savez(WEIGHTS_FILE, **weights)
    print(f"wrote {WEIGHTS_FILE}")


def _prepared(pictures: Iterator[tuple[bytes, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prepare pictures; return images uint8 [N, 28, 28], traits float32 [N, `TRAITS`] and what was given with each."""
    import tensorflow as tf

    from trainer.pictures.normalize import normalize

    images, traits, given = [], [], []
    while some := list(itertools.islice(pictures, 25)):
        seen = normalize(tf.constant([encoded for encoded, _ in some]))
        images.append(seen.images.numpy())
        traits.append(seen.traits.numpy())
        given += [what for _, what in some]
        print(f"\r{len(given)} pictures", end="", flush=True)
    print()
    return np.concatenate(images), np.concatenate(traits), np.array(given)


def _photographs_with_digit(train: "Split") -> Iterator[tuple[bytes, np.ndarray]]:
    """Files, and what is written in them: uint8 [28, 28]."""
    for seed, first in zip(DOUBT_SEEDS, (0, DIGITS // 2), strict=True):
        part = slice(first, first + DOUBT_PHOTOGRAPHS)
        written = train.images[part]
        for one, image in zip(photographs(written, train.labels[part], seed), written, strict=True):
            yield one.encoded, image


def _pictures(images: np.ndarray, validation: "Split") -> Iterator[tuple[bytes, int]]:
    """Files, and which of `NONE`, `ONE` and `SEVERAL` they show."""
    from trainer.pictures.presence import NONE, ONE, SEVERAL

    for seed, count in NONE_PICTURES:
        for one in pictures_without_digit(seed, count):
            yield one.encoded, NONE
    for encoded in _single_digits(images, SINGLE_PICTURES):
        yield encoded, ONE
    for seed in PHOTOGRAPHS_SEEDS:
        for one in photographs(validation.images[:PHOTOGRAPHS], validation.labels[:PHOTOGRAPHS], seed):
            yield one.encoded, ONE
    for seed, count, gap in SEVERAL_PICTURES:
        for one in pictures_of_several(images, seed, count, gap):
            yield one.encoded, SEVERAL


def _single_digits(images: np.ndarray, count: int) -> Iterator[bytes]:
    """Photographs, and enlarged images as a drawing program makes them; a third shows the pen's digits."""
    from trainer.data.pen import draw_digits

    drawn = draw_digits(2000, 77, rare=False).images
    random = np.random.default_rng(4242)
    order = random.permutation(len(drawn))
    for k in range(count):
        image = drawn[order[k // 3]] if k % 3 == 2 else images[random.integers(0, len(images))]
        if k % 5 == 4:
            scale, margin = int(random.integers(2, 12)), int(random.integers(0, 20))
            padded = np.pad(image, margin)
            drawing = Image.fromarray(padded if k % 2 else 255 - padded)
            size = (padded.shape[1] * scale, padded.shape[0] * scale)
            file = io.BytesIO()
            drawing.resize(size, Image.Resampling.BICUBIC).save(file, "PNG" if k % 7 else "JPEG")
            yield file.getvalue()
        else:
            yield photograph(image, 0, np.random.default_rng([SINGLE_SEED, k])).encoded


def fit(images: np.ndarray, traits: np.ndarray, kinds: np.ndarray) -> dict[str, np.ndarray]:
    """Train on images uint8 [N, 28, 28], traits float32 [N, `TRAITS`] and kinds int [N]; return the weights."""
    from sklearn.neural_network import MLPClassifier

    from trainer.pictures.presence import features

    located = images.any(axis=(1, 2))  # without any ink the answer is none
    inputs = features(images[located], traits[located]).numpy()
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + 0.05
    network = MLPClassifier((HIDDEN,), alpha=WEIGHT_DECAY, max_iter=EPOCHS, learning_rate_init=2e-3, random_state=0)
    network.fit((inputs - mean) / deviation, kinds[located])
    first, second = network.coefs_
    # The scaling of the inputs becomes a part of the first layer.
    first_bias = network.intercepts_[0] - (mean / deviation) @ first
    layers = {
        "first": first / deviation[:, np.newaxis],
        "first_bias": first_bias,
        "second": second,
        "second_bias": network.intercepts_[1],
    }
    return {name: values.astype(np.float32) for name, values in layers.items()}


def fit_doubt(images: np.ndarray, traits: np.ndarray, written: np.ndarray) -> dict[str, np.ndarray]:
    """Learn which images, uint8 [N, 28, 28], are unlike what is `written`, uint8 [N, 28, 28]; return the weights."""
    from sklearn.linear_model import LogisticRegression

    from trainer.pictures.presence import doubt_features

    located = images.any(axis=(1, 2))
    inputs = doubt_features(images[located], traits[located]).numpy()
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    regression = LogisticRegression(C=DOUBT_REGULARIZATION, max_iter=5000)
    regression.fit((inputs - mean) / deviation, likeness(images[located], written[located]) < MIN_LIKENESS)
    # The scaling of the inputs becomes a part of the weights.
    weights = regression.coef_[0] / deviation
    return {
        "doubt": weights.astype(np.float32),
        "doubt_bias": (regression.intercept_[0] - mean @ weights).astype(np.float32),
    }


def likeness(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how alike images are, 0 to 1: float64 [N] of uint8 [N, 28, 28]; small moves and noise count little."""
    from scipy import ndimage

    blur = (0, LIKENESS_SIGMA, LIKENESS_SIGMA)
    one, other = (ndimage.gaussian_filter(part.astype(np.float32), blur) for part in (images, others))
    lengths = np.linalg.norm(one, axis=(1, 2)) * np.linalg.norm(other, axis=(1, 2))
    moves = range(-LIKENESS_SHIFT, LIKENESS_SHIFT + 1)
    products = [(np.roll(one, move, (1, 2)) * other).sum(axis=(1, 2)) for move in itertools.product(moves, moves)]
    return np.max(products, axis=0) / np.maximum(lengths, 1e-6)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of MNIST's four files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
