"""Takes a validation split out of training data, and mixes extra examples into it; both repeat exactly."""

import numpy as np

from serving.contract import CLASSES
from trainer.data.split import DataError, Split, verify, verify_disjoint

SEED = 20_260_101
"""Decides which examples are drawn: the same ones in every run, whatever the run's seed."""


def hold_back(train: Split, validation_size: int) -> tuple[Split, Split]:
    """Divide training data into a training and a validation split with the same share of each digit.

    The validation examples are drawn at random, because files that are sorted by digit have only some of the digits at
    their end. Both splits keep the order in which the examples are stored.

    Raises:
        DataError: one of the two splits would lack a digit, or an image would be in both.
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
        np.arange(len(train)), test_size=validation_size, stratify=train.labels, random_state=SEED
    )
    kept, held_back = (_select(train, np.sort(part)) for part in positions)
    for part, name in ((kept, "train"), (held_back, "validation")):
        verify(part, f"{name}, with a validation_size of {validation_size}")
    verify_disjoint(kept, held_back, "validation")
    return kept, held_back


def mix_in(train: Split, extra: Split, share: float) -> Split:
    """Append extra examples, repeated as often as needed, so that they are `share` of the result.

    Training draws its batches from the result as from any split: the examples of a step stay a function of (seed, step).

    Args:
        train: the training split.
        extra: at least one example.
        share: 0 <= share < 1. If it is too small for all extra examples, some are drawn.
    """
    count = extra_count(len(train), share)
    order = np.random.Generator(np.random.Philox(key=SEED)).permutation(len(extra))
    added = _select(extra, np.resize(order, count))
    return Split(np.concatenate([train.images, added.images]), np.concatenate([train.labels, added.labels]))


def extra_count(examples: int, share: float) -> int:
    """Return how many examples to add to `examples`, so that they are `share` of all."""
    return round(share / (1 - share) * examples)


def _select(split: Split, positions: np.ndarray) -> Split:
    return Split(split.images[positions], split.labels[positions])
