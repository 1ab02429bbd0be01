"""Draws an Evaluation, a run's metrics or a search's trials as matplotlib figures, for files, report and TensorBoard.

The figures are made without pyplot, so they need neither global state nor a display.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from serving.contract import CLASSES
from trainer.evaluation.metrics import Evaluation
from trainer.percent import percent

BLUE, ORANGE, RED, GREY = "#2b6cb0", "#dd6b20", "#c53030", "#718096"
DIGITS = range(CLASSES)


def save_figures(
    folder: Path, rows: Sequence[dict[str, Any]], evaluation: Evaluation, images: np.ndarray
) -> list[Path]:
    """Save all figures of a run as PNG files in `folder`.

    Args:
        folder: created if it does not exist.
        rows: the run's metrics, as in metrics.jsonl.
        evaluation: of the test split.
        images: the images that were evaluated, uint8 [N, 28, 28], 0 = paper, 255 = ink.

    Returns:
        The files, in the order of the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "curves": curves(rows),
        "samples": samples(evaluation, images),
        "worst_mistakes": worst_mistakes(evaluation, images),
        "confusion": confusion(evaluation),
        "per_class": per_class(evaluation),
        "reliability": reliability(evaluation),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110)
    return paths


def curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Plot loss, accuracy and learning rate over the steps, for training and validation."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    train = [row for row in rows if row["kind"] == "train"]
    validation = [row for row in rows if row["kind"] == "validation"]
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        axes.plot(*_column(train, name), color=BLUE, linewidth=1, label="training")
        axes.plot(*_column(validation, name), color=ORANGE, marker="o", markersize=3, label="validation")
        axes.legend(frameon=False)
    loss.set_yscale("log")
    accuracy.set_ylim(bottom=max(0.0, min([row["accuracy"] for row in validation[:1]] + [0.9]) - 0.05), top=1.002)
    rate.plot(*_column(train, "learning_rate"), color=GREY)
    for axes, title in ((loss, "Loss"), (accuracy, "Accuracy"), (rate, "Learning rate")):
        axes.set_title(title)
        axes.set_xlabel("step")
        _plain(axes)
    return figure


def confusion(evaluation: Evaluation) -> Figure:
    """Draw the confusion matrix, shaded by mistakes only: correct predictions outnumber them too far to share a scale."""
    figure = Figure(figsize=(6, 5.6), layout="constrained")
    axes = figure.subplots()
    mistakes = evaluation.confusion - np.diag(np.diag(evaluation.confusion))
    axes.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(4, mistakes.max()))
    for row in DIGITS:
        for column in DIGITS:
            count = int(evaluation.confusion[row, column])
            strong = row == column or count > 0.6 * max(4, mistakes.max())
            color = "white" if row != column and strong else "black" if count else "#cbd5e0"
            weight = "bold" if row == column else "normal"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontweight=weight, fontsize=9)
    axes.set_xticks(DIGITS)
    axes.set_yticks(DIGITS)
    axes.set_xlabel("predicted digit")
    axes.set_ylabel("true digit")
    axes.set_title(
        f"{int(mistakes.sum())} mistakes in {len(evaluation.labels):,} (accuracy {percent(evaluation.accuracy)})"
    )
    return figure


def per_class(evaluation: Evaluation) -> Figure:
    """Plot precision and recall of each digit."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(CLASSES)
    axes.bar(positions - 0.2, evaluation.precision, 0.38, color=BLUE, label="precision")
    axes.bar(positions + 0.2, evaluation.recall, 0.38, color=ORANGE, label="recall")
    lowest = np.nanmin([evaluation.precision, evaluation.recall])
    axes.set_ylim(max(0.0, lowest - 0.3 * (1 - lowest) - 0.002), 1.0)
    axes.set_xticks(DIGITS)
    axes.set_xlabel("digit")
    axes.set_title("Precision and recall (the axis does not start at 0)")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    _plain(axes)
    return figure


def reliability(evaluation: Evaluation) -> Figure:
    """Plot accuracy over confidence. On the diagonal, predictions of 90 % confidence are correct in 90 % of cases."""
    figure = Figure(figsize=(5, 5.2), layout="constrained")
    axes, shares = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    confidence, accuracy, share = evaluation.reliability[~np.isnan(evaluation.reliability[:, 0])].T
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.scatter(confidence, accuracy, s=20 + 300 * np.sqrt(share), color=BLUE, alpha=0.8, label="bin of predictions")
    axes.set_ylabel("accuracy")
    axes.set_title(f"Calibration error {percent(evaluation.calibration_error)}")
    axes.legend(frameon=False, loc="upper left", markerscale=0.5)
    shares.bar(confidence, share, width=0.05, color=BLUE)
    shares.set_yscale("log")
    shares.set_xlabel("confidence")
    shares.set_ylabel("share")
    _plain(axes)
    _plain(shares)
    return figure


def samples(evaluation: Evaluation, images: np.ndarray, count: int = 24) -> Figure:
    """Show the first `count` examples with their predictions; wrong ones in red."""
    return gallery(evaluation, images, np.arange(min(count, len(images))))


def worst_mistakes(evaluation: Evaluation, images: np.ndarray) -> Figure:
    """Show the wrong predictions with the highest confidence."""
    return gallery(evaluation, images, evaluation.worst)


def trials(varied: Mapping[str, tuple[Sequence[Any], bool]], losses: Sequence[float]) -> Figure:
    """Plot a search's validation losses over each setting that it varied. The first trial has the settings as given.

    Args:
        varied: for each setting its value in every trial, and whether it was varied on a logarithmic scale.
        losses: one per trial; infinite if the trial diverged, which is not drawn.
    """
    columns = min(len(varied), 4)
    rows = -(-len(varied) // columns)
    figure = Figure(figsize=(3.4 * columns + 1.4, 3.4 * rows), layout="constrained")
    finite = [position for position, loss in enumerate(losses) if math.isfinite(loss)]
    best = min(finite, key=lambda position: losses[position], default=None)
    all_axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, (values, is_log)) in zip(all_axes, varied.items(), strict=False):
        is_number = all(type(value) in (int, float) for value in values)
        at = values if is_number else [str(value) for value in values]
        axes.scatter([at[i] for i in finite], [losses[i] for i in finite], s=22, color=BLUE, label="trial")
        if best is not None:
            axes.scatter(at[best], losses[best], s=60, color=ORANGE, label="the best")
        if 0 in finite:
            axes.scatter(at[0], losses[0], s=150, facecolors="none", edgecolors=GREY, label="as given")
        axes.set_yscale("log")
        if is_log and min(values) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if not is_number:
            axes.tick_params(axis="x", labelrotation=45)
        axes.set_title(name, fontsize=10)
        _plain(axes)
    for axes in all_axes[len(varied) :]:
        axes.axis("off")
    for axes in all_axes[::columns]:
        axes.set_ylabel("validation loss")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def gallery(
    evaluation: Evaluation,
    images: np.ndarray,
    positions: np.ndarray,
    *,
    columns: int = 8,
    size_inches: tuple[float, float] | None = None,
) -> Figure:
    """Show the examples at `positions` with their predictions; wrong ones in red."""
    rows = max(1, -(-len(positions) // columns))
    figure = Figure(figsize=size_inches or (1.45 * columns, 1.7 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.axis("off")
    for axes, position in zip(all_axes, positions, strict=False):
        digit, label = int(evaluation.digits[position]), int(evaluation.labels[position])
        axes.imshow(images[position], cmap="gray_r", vmin=0, vmax=255)
        confidence = percent(evaluation.confidence[position], 1)
        text = f"Digit {digit} ({confidence})"
        if digit != label:
            text = f"predicted {digit} ({confidence}),\nactually {label}"
        axes.set_title(text, fontsize=9, color=RED if digit != label else "black")
    return figure


def _column(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    return [row["step"] for row in rows], [row[name] for row in rows]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
