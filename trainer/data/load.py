"""Labelled images from disk, verified: the first stage of a run.

All sources give the same: uint8 images [N, 28, 28] with 0 = paper and 255 = ink, and labels 0 to 9. They are MNIST through
tensorflow-datasets, IDX files, pictures in folders, and the optdigits that scikit-learn carries. Data that is missing,
truncated, swapped, mislabelled or of the wrong size is rejected here, before any training; the error names the file.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from trainer.data.divide import extra_count, hold_back, mix_in
from trainer.data.split import DataError, Split, Splits, aligned, verify, verify_disjoint


@dataclass(frozen=True)
class Extra:
    """Pictures that are mixed into the training examples of a data set."""

    folder: Path
    """Read as the data set `folder` is."""
    share: float
    """Their share of each epoch, 0 <= share < 1."""


PEN_SEED = 20_260_102
"""Decides the digits that the pen draws: the same ones in every run, whatever the run's seed."""

RARE_STYLES_MIN_EXAMPLES = 10_000
"""Training digits from which on the pen draws rare styles too. With the 1,257 of optdigits, nines were read as 3 and 5."""


def load_splits(
    dataset: str, data_dir: Path, validation_size: int, pen_share: float = 0.0, extra: Extra | None = None
) -> Splits:
    """Read and verify a data set, and hold back a validation split from its training part.

    Args:
        dataset: "mnist" (prepared by tensorflow-datasets in `data_dir` if it is missing there), "idx" (four IDX files in
            `data_dir`), "folder" (pictures in `data_dir`) or "optdigits" (embedded; `data_dir` is not used).
        data_dir: folder of the data set.
        validation_size: examples to hold back from the training data.
        pen_share: share of digits drawn by the pen in the training split, 0 <= pen_share < 1.
        extra: pictures to mix into the training split.

    Raises:
        DataError: data is missing or damaged, or the validation split cannot hold every digit; the message says which.
    """
    train, test = read_dataset(dataset, data_dir)
    train, validation = hold_back(train, validation_size)
    if pen_share:
        from trainer.data.pen import draw_digits

        count, rare = extra_count(len(train), pen_share), len(train) >= RARE_STYLES_MIN_EXAMPLES
        train = mix_in(train, draw_digits(count, PEN_SEED, rare=rare), pen_share)
    splits = Splits(train=train, validation=validation, test=test)
    if extra:
        splits = _with_extra(splits, extra)
    # Training shares this memory. The data set may be much larger than MNIST.
    return replace(splits, train=Split(aligned(splits.train.images), splits.train.labels))


def read_dataset(dataset: str, data_dir: Path) -> tuple[Split, Split]:
    """Read and verify the training and the test split of a data set.

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


def _read(dataset: str, data_dir: Path) -> tuple[Split, Split]:
    """Call the reader of the data set; importing one reader does not import the libraries of the others."""
    if dataset == "mnist":
        from trainer.data.mnist import read_mnist

        return read_mnist(data_dir)
    if dataset == "idx":
        from trainer.data.idx import read_idx_folder

        return read_idx_folder(data_dir)
    if dataset == "folder":
        from trainer.data.folder import read_folder

        return read_folder(data_dir)
    from trainer.data.optdigits import read_optdigits

    return read_optdigits()


def _with_extra(splits: Splits, extra: Extra) -> Splits:
    from trainer.data.folder import folder_fingerprint, read_folder

    # Before the pictures are read: one that is added in between then counts as new.
    fingerprint = folder_fingerprint(extra.folder)
    kept, held_out = read_folder(extra.folder)
    if not len(kept):
        raise DataError(f"{extra.folder}: its {len(held_out)} picture(s) are all held out for testing; add more")
    for unseen, name in ((splits.validation, "validation"), (splits.test, "test")):
        verify_disjoint(kept, unseen, name)
    verify_disjoint(splits.train, held_out, "held-out extra")
    return Splits(
        train=mix_in(splits.train, kept, extra.share),
        validation=splits.validation,
        test=splits.test,
        extra=held_out if len(held_out) else None,
        extra_fingerprint=fingerprint,
    )
