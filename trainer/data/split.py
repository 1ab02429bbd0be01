"""Splits of labelled images and the checks that they must pass: the contract between the readers and all later stages."""

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
    """Data that is missing, damaged, or not what its name says."""

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
        """SHA-256 of the set of examples; it does not depend on their order."""
        digests = sorted(
            hashlib.sha256(image.tobytes() + bytes([label])).digest()
            for image, label in zip(self.images, self.labels.tolist(), strict=True)
        )
        return hashlib.sha256(b"".join(digests)).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 of the examples in their stored order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


TENSOR_ALIGNMENT_BYTES = 64
"""TensorFlow can use an array in place if its address is a multiple of this."""


def aligned(array: np.ndarray) -> np.ndarray:
    """Return an equal array that TensorFlow can use in place: the array itself, or else a copy."""
    if array.ctypes.data % TENSOR_ALIGNMENT_BYTES == 0 and array.flags.c_contiguous and array.flags.writeable:
        return array
    memory = np.empty(array.nbytes + TENSOR_ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % TENSOR_ALIGNMENT_BYTES
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@dataclass(frozen=True)
class Splits:
    """Disjoint splits: train on the first, choose settings by the second, score once on the others."""

    train: Split
    """With extra pictures mixed in, if there are any."""
    validation: Split
    test: Split
    extra: Split | None = None
    """The extra pictures that are not trained on; not every digit is in it."""
    extra_fingerprint: str = ""
    """`folder_fingerprint` of all extra pictures; empty without any."""

    @cached_property
    def digests(self) -> dict[str, str]:
        """`Split.digest` of each split, by its name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test, "extra": self.extra}
        return {name: split.digest for name, split in splits.items() if split}


def verify(split: Split, name: str) -> None:
    """Check a split against the contract of `Split`, and that it has every digit and no blank image.

    Args:
        split: what to check.
        name: its name in the error.

    Raises:
        DataError: naming the split and the first defect.
    """
    images, labels = split.images, split.labels
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != IMAGE_SHAPE:
        raise DataError(f"{name}: images are {images.dtype} {list(images.shape)}; expected uint8 [N, 28, 28]")
    if labels.dtype != np.uint8 or labels.shape != (len(images),):
        raise DataError(f"{name}: labels are {labels.dtype} {list(labels.shape)}; expected uint8 [{len(images)}]")
    if len(labels) and labels.max() >= CLASSES:
        position = int(np.argmax(labels >= CLASSES))
        raise DataError(f"{name}: label {labels[position]} at position {position}; expected 0 to {CLASSES - 1}")
    missing = np.flatnonzero(np.bincount(labels, minlength=CLASSES) == 0)
    if len(missing):
        raise DataError(f"{name}: no example of digit(s) {', '.join(map(str, missing))} among {len(labels)}")
    blank = np.flatnonzero(images.max(axis=(1, 2)) == 0)
    if len(blank):
        raise DataError(f"{name}: image {blank[0]} is blank ({len(blank)} blank images in all)")


def verify_disjoint(train: Split, unseen: Split, name: str) -> None:
    """Check that no image of `unseen` is a training image: a score on images that were trained on means nothing.

    Args:
        train: the training split.
        unseen: another split.
        name: its name in the error.

    Raises:
        DataError: naming the first image that is in both.
    """
    trained_on = {image.tobytes() for image in train.images}
    shared = [i for i, image in enumerate(unseen.images) if image.tobytes() in trained_on]
    if shared:
        raise DataError(
            f"{len(shared)} of {len(unseen)} {name} images are training images too (first: {name} image {shared[0]}); "
            "remove the duplicates"
        )
