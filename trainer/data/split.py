"""What a split is, and what makes one sound: the contract between the data sources and everything after them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from serving.contract import CLASSES, IMAGE_SHAPE
from trainer.errors import ExitCode, RunError

MNIST_FINGERPRINTS = {
    "train": "54e1ab866c9484947dd4821c52bb7a43938f555d6b046be6af55247f8e6ffc64",
    "test": "97b756d55950f1841ebd48df7379b9b2fc87a10d63e08d6213dad41d564e8508",
}
"""`Split.fingerprint` of MNIST's 60,000 training and 10,000 test examples."""


class DataError(RunError):
    """Data that is missing, damaged, or not what it claims to be."""

    exit_code = ExitCode.DATA


@dataclass(frozen=True)
class Split:
    """Labelled images.

    images: uint8 [N, 28, 28], 0 = paper, 255 = ink.
    labels: uint8 [N], 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the set of examples: the same in whatever order they are stored."""
        digests = sorted(
            hashlib.sha256(image.tobytes() + bytes([label])).digest()
            for image, label in zip(self.images, self.labels.tolist(), strict=True)
        )
        return hashlib.sha256(b"".join(digests)).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 of the examples in the order in which they are stored."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()


@dataclass(frozen=True)
class Splits:
    """The three disjoint parts: train to learn from, validation to choose by, test to be scored on once."""

    train: Split
    validation: Split
    test: Split

    @cached_property
    def digests(self) -> dict[str, str]:
        """`Split.digest` of each part, by its name."""
        return {part: getattr(self, part).digest for part in ("train", "validation", "test")}


def verify(split: Split, name: str) -> None:
    """Refuse a split that breaks the contract of `Split`, or in which a digit never occurs.

    Raises:
        DataError: naming the split and what is wrong with it.
    """
    images, labels = split.images, split.labels
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != IMAGE_SHAPE:
        raise DataError(f"{name}: images are {images.dtype} {list(images.shape)}; expected uint8 [N, 28, 28]")
    if labels.dtype != np.uint8 or labels.shape != (len(images),):
        raise DataError(f"{name}: labels are {labels.dtype} {list(labels.shape)}; expected uint8 [{len(images)}]")
    if len(labels) and labels.max() >= CLASSES:
        where = int(np.argmax(labels >= CLASSES))
        raise DataError(f"{name}: label {labels[where]} at position {where}; expected 0 to {CLASSES - 1}")
    missing = np.flatnonzero(np.bincount(labels, minlength=CLASSES) == 0)
    if len(missing):
        raise DataError(f"{name}: no example of digit(s) {', '.join(map(str, missing))} among {len(labels)}")
    blank = np.flatnonzero(images.max(axis=(1, 2)) == 0)
    if len(blank):
        raise DataError(f"{name}: image {blank[0]} is blank ({len(blank)} in all)")
