"""The embedded data set: 1,797 handwritten 8x8 digits that scikit-learn's wheel contains, brought to MNIST's format.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

import numpy as np
from PIL import Image

from trainer.data.split import DataError, Split

TEST_SIZE = 360
"""The last fifth, in stored order: a random fifth would have more writers in common with the training split."""

FINGERPRINT = "c89557293abc29134c40b0a839f461f242b748149ba8023c81de74126e66c675"
"""`Split.fingerprint` of all 1,797 prepared digits."""


def read_optdigits() -> tuple[Split, Split]:
    """Read the training (1,437 digits) and the test split (360).

    Raises:
        DataError: the installed scikit-learn contains other digits, or the installed Pillow scales them differently.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.stack([to_mnist_format(image) for image in digits.images])
    labels = digits.target.astype(np.uint8)
    if Split(images, labels).fingerprint != FINGERPRINT:
        raise DataError(
            "the digits of the installed scikit-learn, scaled by the installed Pillow, differ from the expected ones; "
            "install the versions of requirements/train.txt"
        )
    return Split(images[:-TEST_SIZE], labels[:-TEST_SIZE]), Split(images[-TEST_SIZE:], labels[-TEST_SIZE:])


def to_mnist_format(digit: np.ndarray) -> np.ndarray:
    """Prepare a digit as MNIST's were: fit it into 20x20 with its aspect kept, centre it by mass in 28x28.

    Source: Y. LeCun, MNIST page.

    Args:
        digit: [8, 8], 0 = paper, 16 = full ink.

    Returns:
        uint8 [28, 28].
    """
    rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
    box = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    scale = 20 / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    fitted = np.asarray(Image.fromarray(box).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 16)
    mass = fitted.sum()
    top = round(14 - (fitted.sum(axis=1) @ (np.arange(height) + 0.5)) / mass)
    left = round(14 - (fitted.sum(axis=0) @ (np.arange(width) + 0.5)) / mass)
    top, left = min(max(top, 0), 28 - height), min(max(left, 0), 28 - width)
    image = np.zeros((28, 28), np.uint8)
    image[top : top + height, left : left + width] = np.rint(fitted * (255 / 16))
    return image
