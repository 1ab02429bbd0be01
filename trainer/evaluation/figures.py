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
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from percent import confidence_percent, percent
from serving.contract import CLASSES
from trainer.evaluation.metrics import Evaluation, wilson_interval

BLUE, ORANGE, RED, GREEN, PURPLE, GREY = "#2b6cb0", "#c05621", "#c53030", "#276749", "#6b46c1", "#718096"
DIGITS = range(CLASSES)

CURVES = {"loss": "Loss (cross-entropy in nats)", "accuracy": "Accuracy", "learning_rate": "Learning rate"}
"""What is plotted over the epochs, with its title."""

CURVES_EXPLAINED = (
    "Training values may look worse than validation values: training images are augmented, dropout and label "
    "smoothing make the task harder, and validation uses the averaged weights where the run keeps an average. Thin "
    "lines: every recorded value. Thick lines: means over windows of equal length."
)

WINDOWS = 40
"""Means over the training values of a run: as many windows of equal length."""


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
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "curves": curves(rows),
        "samples": samples(evaluation, images),
        "worst_mistakes": worst_mistakes(evaluation, images),
        "confusion": confusion(evaluation),
        "reliability": reliability(evaluation),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110)
    return paths


def curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Plot loss, accuracy and learning rate over the epochs, for training and validation."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        _draw_curve(axes, rows, name)
        axes.set_title(CURVES[name])
    return figure


def curve(rows: Sequence[dict[str, Any]], name: str) -> Figure:
    """Plot one of `CURVES` over the epochs, for training and validation."""
    figure = Figure(figsize=(4, 2.9), layout="constrained")  # Three of them in a row have to be legible.
    _draw_curve(figure.subplots(), rows, name)
    return figure


def curves_of_runs(runs: Mapping[str, Sequence[dict[str, Any]]], name: str) -> Figure:
    """Plot the validation values of several runs over the epochs: "loss" or "accuracy"."""
    figure = Figure(figsize=(4.6, 3.3), layout="constrained")
    axes = figure.subplots()
    styles = [(color, line) for line in ("-", "--", ":") for color in (BLUE, ORANGE, GREEN, PURPLE, RED)]
    for (run, rows), (color, line) in zip(runs.items(), styles, strict=False):
        epochs, values = _over_epochs(rows, "validation", name)
        axes.plot(epochs, values, color=color, linestyle=line, linewidth=1.5, label=run)
    _finish_curve(axes, name)
    return figure


def confusion(evaluation: Evaluation, size_inches: tuple[float, float] = (6, 5.6)) -> Figure:
    """Draw the confusion matrix, shaded by mistakes only: correct predictions outnumber them too far to share a scale."""
    figure = Figure(figsize=size_inches, layout="constrained")
    axes = figure.subplots()
    mistakes = evaluation.confusion - np.diag(np.diag(evaluation.confusion))
    axes.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(4, mistakes.max()))
    for row in DIGITS:
        for column in DIGITS:
            count = int(evaluation.confusion[row, column])
            is_dark = row != column and count > 0.6 * max(4, mistakes.max())
            color = "white" if is_dark else "black" if count else "#cbd5e0"
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


def reliability(evaluation: Evaluation) -> Figure:
    """Plot accuracy over confidence, with a 95 % interval for each bin, and the number of predictions in each bin.

    On the diagonal, predictions of 90 % confidence are correct in 90 % of cases.
    """
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes, counts_axes = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    confidence, accuracy, share = evaluation.reliability[~np.isnan(evaluation.reliability[:, 0])].T
    counts = np.rint(share * len(evaluation.labels)).astype(int)
    bounds = [wilson_interval(round(a * n), int(n)) for a, n in zip(accuracy, counts, strict=True)]
    below, above = np.clip(np.abs(np.array(bounds).T - accuracy), 0, None)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.errorbar(confidence, accuracy, (below, above), color=BLUE, fmt="o", markersize=4, label="bin, 95 % interval")
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.03, 1.03)
    figure.legend(frameon=False, loc="outside upper left", ncols=2, fontsize=8)  # Bins may be anywhere inside.
    axes.yaxis.set_major_formatter(_percents())
    counts_axes.bar(confidence, counts, width=0.05, color=BLUE)
    counts_axes.set_yscale("log")
    counts_axes.set_ylim(bottom=0.5)
    counts_axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    counts_axes.set_xlabel("confidence")
    counts_axes.set_ylabel("predictions")
    counts_axes.xaxis.set_major_formatter(_percents())
    _plain(axes)
    _plain(counts_axes)
    return figure


def samples(evaluation: Evaluation, images: np.ndarray, count: int = 24) -> Figure:
    """Show the first `count` examples with their predictions; wrong ones in red."""
    return gallery(evaluation, images, np.arange(min(count, len(images))))


def worst_mistakes(evaluation: Evaluation, images: np.ndarray) -> Figure:
    """Show the wrong predictions with the highest confidence."""
    return gallery(evaluation, images, evaluation.worst)


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
        confidence = confidence_percent(evaluation.confidence[position], 0)
        text = f"Digit {digit} ({confidence})"
        if digit != label:
            text = f"predicted {digit} ({confidence}),\nactually {label}"
        axes.set_title(text, fontsize=9, color=RED if digit != label else "black")
    return figure


def _draw_curve(axes: Axes, rows: Sequence[dict[str, Any]], name: str) -> None:
    epochs, values = _over_epochs(rows, "train", name)
    marker = "o" if len(values) == 1 else ""  # A line through one point is invisible.
    if name == "learning_rate":
        axes.plot(epochs, values, color=GREY, marker=marker, markersize=3)
        axes.set_ylim(bottom=0)
    else:
        # A row is a mean over the steps since the row before it, so it belongs in their middle.
        axes.plot(epochs - np.diff(epochs, prepend=0) / 2, values, color=BLUE, linewidth=0.8, alpha=0.5)
        axes.plot(*_window_means(rows, name), color=BLUE, linewidth=1.8, marker=marker, markersize=3, label="training")
        axes.plot(*_over_epochs(rows, "validation", name), color=ORANGE, marker="o", markersize=3, label="validation")
    _finish_curve(axes, name)


def _finish_curve(axes: Axes, name: str) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if name == "loss":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        _label_minor_ticks(axes)
    if name == "accuracy":
        drawn = [np.asarray(line.get_ydata()) for line in axes.lines if line.get_linewidth() > 1]
        lowest = min((float(np.quantile(values, 0.1)) for values in drawn if len(values)), default=0.0)
        axes.set_ylim(max(0.0, lowest - 0.02), 1.002)
        axes.yaxis.set_major_formatter(_percents())
    if axes.get_legend_handles_labels()[0]:
        # Loss falls and accuracy rises, so these corners are free.
        axes.legend(frameon=False, fontsize=8, loc="upper right" if name == "loss" else "lower right")
    _plain(axes)


def _label_minor_ticks(axes: Axes) -> None:
    """Label more than the powers of ten on a logarithmic axis that has fewer than two of them."""
    lowest, highest = axes.get_ylim()
    if math.floor(math.log10(highest)) > math.ceil(math.log10(lowest)):
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    axes.yaxis.set_minor_formatter("{x:g}")
    if highest > 6.25 * lowest:  # 2 and 5 are labels enough: two neighbours of 1, 2, 5, 10 differ by 2.5 at most.
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))


def _over_epochs(rows: Sequence[dict[str, Any]], kind: str, name: str) -> tuple[list[float], list[float]]:
    per_step = _epochs_per_step(rows)
    chosen = [row for row in rows if row["kind"] == kind and name in row]
    return [row["step"] * per_step for row in chosen], [row[name] for row in chosen]


def _epochs_per_step(rows: Sequence[dict[str, Any]]) -> float:
    last = next((row for row in reversed(rows) if row["kind"] == "train"), None)
    return last["epoch"] / last["step"] if last else 1.0


def _window_means(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Return the training values' means over `WINDOWS` windows of equal length, at the middle of each window.

    A row is a mean over the steps since the row before it, so it counts as many times as it has steps.
    """
    train = [row for row in rows if row["kind"] == "train"]
    if not train:
        return [], []
    steps = np.array([row["step"] for row in train])
    of_step = np.repeat([row[name] for row in train], np.diff(steps, prepend=0))
    edges = np.unique(np.linspace(0, len(of_step), min(WINDOWS, len(train)) + 1).astype(int))
    means = np.add.reduceat(of_step, edges[:-1]) / np.diff(edges)
    return ((edges[:-1] + edges[1:]) / 2 * _epochs_per_step(rows)).tolist(), means.tolist()


def _percents() -> PercentFormatter:
    return PercentFormatter(1.0, symbol=" %")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
