"""Where each data set comes from and under which licence, for reports and model cards."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """The origin of a data set."""

    title: str
    url: str
    licence: str
    hub_id: str = ""
    """Its name on the Hugging Face hub; empty if it is not there."""


SOURCES = {
    "mnist": Source(
        "MNIST, Y. LeCun, C. Cortes and C. Burges",
        "https://www.tensorflow.org/datasets/catalog/mnist",
        "CC BY-SA 3.0",
        "ylecun/mnist",
    ),
    "idx": Source("four IDX files in MNIST's format, given by the user", "no URL", "that of the given files"),
    "folder": Source("pictures in a folder, given by the user", "no URL", "that of the given pictures"),
    "optdigits": Source(
        "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998",
        "https://archive.ics.uci.edu/dataset/80",
        "CC BY 4.0",
    ),
}
"""By the name of the data set in a config."""
