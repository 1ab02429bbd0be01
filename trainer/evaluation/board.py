"""An Evaluation -> TensorBoard: scores, curves, mistakes and vectors of the test split, for the run `validation`."""

import io

import keras
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from trainer.data.split import Split
from trainer.evaluation.figures import confusion, gallery
from trainer.evaluation.metrics import Evaluation
from trainer.runs.tensorboard import TRAIN, VALIDATION, TensorBoard

CARD_INCHES, CARD_PIXELS = 4.6, 350
"""Width of a picture, and of the card on which TensorBoard shows it. It scales pictures without smoothing, so other widths
make the text ragged."""

MISTAKES = 9
"""As many as can be read on one card."""

PROJECTED = 1000
"""Test digits on the projector tab; more of them make it slow in the browser."""


def show_evaluation(board: TensorBoard, evaluation: Evaluation, test: Split, model: keras.Model, step: int) -> None:
    """Write the scores on the test split, precision-recall curves, the worst mistakes and the projector's vectors."""
    board.scalars(
        {
            "test/accuracy": (evaluation.accuracy, "Share of correct predictions on the test split."),
            "test/loss": (
                evaluation.loss,
                "Mean cross-entropy on the test split in nats, with the served temperature.",
            ),
            "test/calibration_error": (evaluation.calibration_error, "Expected calibration error on the test split."),
        },
        step,
    )
    worst = gallery(evaluation, test.images, evaluation.worst[:MISTAKES], columns=3, size_inches=(CARD_INCHES, 4.8))
    for tag, figure, description in (
        ("test/worst_mistakes", worst, "The most confident mistakes on the test split."),
        (
            "test/confusion",
            confusion(evaluation, (CARD_INCHES, 4.4)),
            "True digit in rows, predicted digit in columns.",
        ),
    ):
        board.image(VALIDATION, tag, _png(figure), step=step, description=description)
    board.pr_curves(evaluation.probabilities, evaluation.labels, step)
    chosen = test.images[:PROJECTED]
    embed = keras.Model(model.input, model.layers[-1].input)
    columns = {"true": evaluation.labels[:PROJECTED].tolist(), "predicted": evaluation.digits[:PROJECTED].tolist()}
    board.projector(embed.predict(chosen, batch_size=500, verbose=0), sprites(chosen), columns)


def show_batch(board: TensorBoard, images: np.ndarray) -> None:
    """Write what the first step learns from: uint8 [B, 28, 28], augmented."""
    figure = Figure(figsize=(CARD_INCHES, 3.1), layout="constrained")
    for axes, image in zip(figure.subplots(4, 6).flat, images, strict=False):
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)
    for axes in figure.axes:
        axes.axis("off")
    description = "Images of the first step, as the model sees them: augmentation included."
    board.image(TRAIN, "train/augmented_batch", _png(figure), step=0, description=description)


def sprites(images: np.ndarray) -> bytes:
    """Return a square PNG file of images uint8 [N, 28, 28], row by row, dark on light; the last rows may stay empty."""
    side = int(np.ceil(np.sqrt(len(images))))
    tiles = np.zeros((side * side, 28, 28), np.uint8)
    tiles[: len(images)] = images
    sheet = tiles.reshape(side, side, 28, 28).swapaxes(1, 2).reshape(side * 28, side * 28)
    file = io.BytesIO()
    Image.fromarray(255 - sheet).save(file, "PNG", optimize=True)
    return file.getvalue()


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=CARD_PIXELS / CARD_INCHES, format="png")
    return file.getvalue()
