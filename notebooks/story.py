"""What the cells of the notebook call: the data, pictures with alternative text, and requests in a thread."""

import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from percent import percent
from serving.client import DigitClient
from trainer.config import resolve
from trainer.data.load import load_splits
from trainer.data.split import DataError, Splits
from trainer.evaluation.figures import BLUE, ORANGE
from trainer.runs.listing import list_runs

ROOT = Path(__file__).parents[1]


def load_digits() -> tuple[str, Splits]:
    """MNIST, else the digits that scikit-learn carries.

    MNIST is read from the four original files in the folder that MNIST_DIR names, else through tensorflow-datasets, which
    downloads it to artifacts/data.

    Returns:
        The name of the data set, and its splits.
    """
    files = os.environ.get("MNIST_DIR")
    dataset, folder = ("idx", Path(files)) if files else ("mnist", ROOT / "artifacts" / "data")
    try:
        return "MNIST", load_splits(dataset, folder, validation_size=5000)
    except DataError:
        return "optdigits", load_splits("optdigits", folder, validation_size=180)


def picture(figure: Figure, alt: str) -> Image:
    """A figure for a cell's output; `alt` says in words what it shows."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return Image(file.getvalue(), alt=alt)


def show_digits(images: np.ndarray, titles: Sequence[Any], alt: str, columns: int = 12) -> Image:
    """Images uint8 [N, 28, 28] in rows, each with its title; ink is dark on light."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    inches = 1.0 if columns > 4 else 1.8  # A few digits have room for long titles.
    figure = Figure(figsize=(inches * columns, (inches + 0.3) * rows), layout="constrained")
    for axes, image, title in zip(figure.subplots(rows, columns, squeeze=False).flat, images, titles, strict=False):
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(title, fontsize=9)
    for axes in figure.axes:
        axes.axis("off")
    return picture(figure, alt)


def show_histories(histories: dict[str, keras.callbacks.History], name: str, alt: str) -> Image:
    """Training and validation values of Keras histories over the epochs, side by side, on the same scale."""
    figure = Figure(figsize=(4.6 * len(histories), 3.2), layout="constrained")
    shared = figure.subplots(1, len(histories), sharey=True, squeeze=False).flat
    for axes, (title, history) in zip(shared, histories.items(), strict=True):
        _plot_history(axes, history, name)
        axes.set_title(title)
    return picture(figure, alt)


def overfitting_in_words(without: keras.callbacks.History, with_dropout: keras.callbacks.History) -> str:
    """What the validation losses of two trainings say about overfitting, and about dropout as its cure.

    It depends on the data: the digits that scikit-learn carries may be too easy to overfit in these epochs.
    """
    plain, dropped = without.history["val_loss"], with_dropout.history["val_loss"]
    rises = plain[-1] > 1.05 * min(plain)
    end = "lower" if dropped[-1] < plain[-1] else "no lower"
    return (
        f"Without dropout the validation loss {'rises' if rises else 'does not rise'} again after its lowest value; "
        f"with dropout it ends {end}."
    )


def accurate_row() -> list[list[str]]:
    """A row of the table for the latest run of the preset `accurate` in artifacts/; none if there is no such run."""
    runs = ROOT / "artifacts" / "runs"
    scores = [
        run.accuracy
        for run in list_runs(runs)
        if run.accuracy and run.split == "test" and resolve(file=runs / run.run / "config.json").preset == "accurate"
    ]
    return [["preset accurate", percent(scores[-1])]] if scores else []


class Requests:
    """The versions that answered a client's requests, in order, and the errors."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.failed: list[Exception] = []

    def wait_for(self, version: int) -> None:
        """Return when `version` answers, or when a request fails."""
        while not self.failed and version not in self.versions[-1:]:
            threading.Event().wait(0.05)

    @property
    def order(self) -> list[int]:
        """The versions without repeats."""
        return [one for at, one in enumerate(self.versions) if at == 0 or one != self.versions[at - 1]]


@contextmanager
def steady_requests(client: DigitClient, image: np.ndarray) -> Iterator[Requests]:
    """Send one request after the other from a thread of its own while the body runs."""
    requests, stop = Requests(), threading.Event()

    def send() -> None:
        while not stop.is_set():
            try:
                requests.versions.append(client.predict(image).version[0])
            except Exception as error:
                requests.failed.append(error)
            stop.wait(0.01)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield requests
    finally:
        stop.set()
        thread.join()


def _plot_history(axes: Axes, history: keras.callbacks.History, name: str) -> None:
    for key, label, color in ((name, "training", BLUE), (f"val_{name}", "validation", ORANGE)):
        axes.plot(range(1, len(history.history[key]) + 1), history.history[key], color=color, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
