"""Labelled images from disk, verified: the first stage.

Three sources give the same thing, uint8 images [N, 28, 28] with 0 = paper and 255 = ink, and labels 0 to 9:
MNIST through tensorflow-datasets, a folder of IDX files, and scikit-learn's embedded optdigits. Whatever is missing,
truncated, swapped, mislabelled or of the wrong size is refused here, before any training, with its name.
"""

from pathlib import Path

from trainer.data.split import DataError, Split, Splits, verify


def load_splits(dataset: str, data_dir: Path, validation_size: int) -> Splits:
    """Read, verify and part a data set; the validation split is the end of the training data.

    Args:
        dataset: "mnist" (prepared by tensorflow-datasets in `data_dir` if it is not there yet), "idx" (four IDX files in
            `data_dir`) or "optdigits" (embedded; `data_dir` is not used).
        data_dir: folder of the data set.
        validation_size: examples to hold back from the training data.

    Raises:
        DataError: something is missing or damaged; the message names it.
    """
    train, test = read_dataset(dataset, data_dir)
    verify(train, f"{dataset} train")
    verify(test, f"{dataset} test")
    _verify_disjoint(train, test, "test")
    if validation_size >= len(train):
        raise DataError(f"validation_size is {validation_size}, but there are only {len(train)} training examples")
    cut = len(train) - validation_size
    validation = Split(train.images[cut:], train.labels[cut:])
    train = Split(train.images[:cut], train.labels[:cut])
    _verify_disjoint(train, validation, "validation")
    return Splits(train=train, validation=validation, test=test)


def read_dataset(dataset: str, data_dir: Path) -> tuple[Split, Split]:
    """The training and test parts as their source has them, each from the module that knows the source."""
    if dataset == "mnist":
        from trainer.data.mnist import read_mnist

        return read_mnist(data_dir)
    if dataset == "idx":
        from trainer.data.idx import read_idx_folder

        return read_idx_folder(data_dir)
    from trainer.data.optdigits import read_optdigits

    return read_optdigits()


def _verify_disjoint(train: Split, unseen: Split, name: str) -> None:
    seen = {image.tobytes() for image in train.images}
    shared = [i for i, image in enumerate(unseen.images) if image.tobytes() in seen]
    if shared:
        raise DataError(
            f"{len(shared)} of {len(unseen)} {name} images are training images too (first: {name} image {shared[0]}); "
            "what a model is judged by must be unseen: remove the duplicates"
        )
