"""Labelled images from disk, verified: the first stage of a run.

All sources give the same: uint8 images [N, 28, 28] with 0 = paper and 255 = ink, and labels 0 to 9. They are MNIST through
tensorflow-datasets, a folder of IDX files, and the optdigits that scikit-learn carries. Data that is missing, truncated,
swapped, mislabelled or of the wrong size is rejected here, before any training; the error names the file.
"""

from pathlib import Path

import numpy as np

from serving.contract import CLASSES
from trainer.data.split import DataError, Split, Splits, verify, verify_disjoint

SPLIT_SEED = 20_260_101
"""Decides which training examples become the validation split: the same ones in every run, whatever the run's seed."""


def load_splits(dataset: str, data_dir: Path, validation_size: int) -> Splits:
    """Read and verify a data set, and hold back a validation split from its training part.

    Args:
        dataset: "mnist" (prepared by tensorflow-datasets in `data_dir` if it is missing there), "idx" (four IDX files in
            `data_dir`) or "optdigits" (embedded; `data_dir` is not used).
        data_dir: folder of the data set.
        validation_size: examples to hold back from the training data.

    Raises:
        DataError: data is missing or damaged, or the validation split cannot hold every digit; the message says which.
    """
    train, test = read_dataset(dataset, data_dir)
    train, validation = hold_back(train, validation_size)
    return Splits(train=train, validation=validation, test=test)


def read_dataset(dataset: str, data_dir: Path) -> tuple[Split, Split]:
    """Read and verify the training and the test split of a data set, as its source parts them.

    Args:
        dataset: as in `load_splits`.
        data_dir: folder of the data set.

    Raises:
        DataError: data is missing or damaged, or a test image is a training image too.
    """
    train, test = _read(dataset, data_dir)
    verify(train, f"{dataset} train")
    verify(test, f"{dataset} test")
    verify_disjoint(train, test, "test")
    return train, test


def hold_back(train: Split, validation_size: int) -> tuple[Split, Split]:
    """Part the training data into a training and a validation split with the same share of each digit.

    The validation examples are drawn at random with `SPLIT_SEED`, because files that are sorted by digit have only some
    of the digits at their end. Both parts keep the order in which the examples are stored.

    Raises:
        DataError: one of the two parts would lack a digit, or an image would be in both.
    """
    from sklearn.model_selection import train_test_split

    if validation_size >= len(train):
        raise DataError(f"validation_size is {validation_size}, but there are only {len(train)} training examples")
    if min(validation_size, len(train) - validation_size) < CLASSES:
        raise DataError(
            f"validation_size is {validation_size} of {len(train)} training examples; "
            f"expected at least {CLASSES} in each part, one of each digit"
        )
    counts = np.bincount(train.labels, minlength=CLASSES)
    if counts.min() < 2:
        raise DataError(
            f"the training data has {counts.min()} example(s) of digit {counts.argmin()}; "
            "expected at least 2 of each digit, one to train on and one to validate on"
        )
    positions = train_test_split(
        np.arange(len(train)), test_size=validation_size, stratify=train.labels, random_state=SPLIT_SEED
    )
    kept, held_back = (Split(train.images[part], train.labels[part]) for part in map(np.sort, positions))
    for part, name in ((kept, "train"), (held_back, "validation")):
        verify(part, f"{name}, with a validation_size of {validation_size}")
    verify_disjoint(kept, held_back, "validation")
    return kept, held_back


def _read(dataset: str, data_dir: Path) -> tuple[Split, Split]:
    """Call the reader of the data set; importing one reader does not import the libraries of the others."""
    if dataset == "mnist":
        from trainer.data.mnist import read_mnist

        return read_mnist(data_dir)
    if dataset == "idx":
        from trainer.data.idx import read_idx_folder

        return read_idx_folder(data_dir)
    from trainer.data.optdigits import read_optdigits

    return read_optdigits()
