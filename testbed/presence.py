"""Train the network that tells a digit from none and from several, and write its weights into the trainer.

    $ python -m testbed.presence --data-dir mnist/     # 40 minutes; trainer/pictures/presence.npz

It learns from rendered pictures of MNIST's training digits and of the pen's, never from those that benchmarks score.
"""

import argparse
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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

DIGITS, VALIDATION_DIGITS = 40_000, 5000
"""So many of MNIST's training digits are drawn from, and so many do presets hold back."""

HIDDEN, WEIGHT_DECAY, EPOCHS = 96, 0.1, 80


def main() -> None:
    """Render, prepare, train and write."""
    args = _parse_arguments()
    import tensorflow as tf

    from trainer.data.divide import hold_back
    from trainer.data.idx import read_idx_folder
    from trainer.pictures.normalize import normalize
    from trainer.pictures.presence import WEIGHTS_FILE

    train, _ = read_idx_folder(args.data_dir)
    images, traits, kinds = [], [], []
    taken = _pictures(train.images[:DIGITS], hold_back(train, VALIDATION_DIGITS)[1])
    while some := list(itertools.islice(taken, 25)):
        seen = normalize(tf.constant([encoded for encoded, _ in some]))
        images.append(seen.images.numpy())
        traits.append(seen.traits.numpy())
        kinds += [kind for _, kind in some]
        print(f"\r{len(kinds)} pictures", end="", flush=True)
    weights = fit(np.concatenate(images), np.concatenate(traits), np.array(kinds))
    np.savez(WEIGHTS_FILE, **weights)
    print(f"\nwrote {WEIGHTS_FILE}")


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


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of MNIST's four files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
