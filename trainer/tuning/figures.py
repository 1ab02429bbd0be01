"""The pictures of a search: its trials over each setting, the importance of the settings, TensorBoard's hparams tab."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainer.evaluation.figures import BLUE, GREY, ORANGE
from trainer.tuning.results import Trial
from trainer.tuning.search_space import Dimension, Range


def draw_trials(trials: Sequence[Trial], dimensions: Sequence[Dimension]) -> Figure:
    """Plot the validation loss over each setting that is varied, in the order of the trials; the first has the given ones.

    Trials without a loss, which diverged for instance, are not drawn.
    """
    losses = [trial.loss for trial in trials]
    columns = min(len(dimensions), 4)
    rows = -(-len(dimensions) // columns)
    figure = Figure(figsize=(3.4 * columns + 1.4, 3.4 * rows), layout="constrained")
    finite = [position for position, loss in enumerate(losses) if math.isfinite(loss)]
    best = min(finite, key=lambda position: losses[position], default=None)
    all_axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, dimension in zip(all_axes, dimensions, strict=False):
        values = [trial.settings[dimension.name] for trial in trials]
        is_number = all(type(value) in (int, float) for value in values)
        at = values if is_number else [str(value) for value in values]
        margins = [trials[i].margin for i in finite]
        axes.errorbar(
            [at[i] for i in finite], [losses[i] for i in finite], margins, fmt="none", ecolor=GREY, elinewidth=0.8
        )
        axes.scatter([at[i] for i in finite], [losses[i] for i in finite], s=22, color=BLUE, label="trial")
        if best is not None:
            axes.scatter(at[best], losses[best], s=60, color=ORANGE, label="lowest loss")
        if 0 in finite:
            axes.scatter(at[0], losses[0], s=150, facecolors="none", edgecolors=GREY, label="as given")
        if finite:  # A logarithmic axis without a value cannot be drawn.
            axes.set_yscale("log")
        if isinstance(dimension, Range) and dimension.is_log and min(values) > 0:
            axes.set_xscale("log")
            axes.set_xlim(0.9 * min([dimension.low, *values]), 1.1 * max([dimension.high, *values]))
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if not is_number:
            axes.tick_params(axis="x", labelrotation=45)
        axes.set_title(dimension.name, fontsize=10)
        _plain(axes)
    for axes in all_axes[len(dimensions) :]:
        axes.axis("off")
    for axes in all_axes[::columns]:
        axes.set_ylabel("validation loss")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def draw_importances(importances: Mapping[str, float]) -> Figure:
    """Plot how much of the differences in loss each varied setting explains."""
    figure = Figure(figsize=(7, 0.5 * len(importances) + 1.4), layout="constrained")
    axes = figure.subplots()
    names = list(importances)[::-1]
    axes.barh(names, [importances[name] for name in names], color=BLUE)
    axes.set_xlim(0, 1)
    axes.set_title("Importance: share of the variance in loss (PED-ANOVA)", fontsize=10)
    _plain(axes)
    return figure


def write_hparams(folder: Path, trials: Sequence[Trial]) -> None:
    """Write the trials for TensorBoard's hparams tab: `tensorboard --logdir FOLDER`, one TensorBoard run per trial."""
    shutil.rmtree(folder, ignore_errors=True)
    for trial in trials:
        writer = EventFileWriter(str(folder / trial.run_dir.name))
        summaries = [hparams.hparams_pb(trial.settings, trial_id=trial.run_dir.name)]
        if trial.scores:
            summaries += [
                scalar_pb("validation/loss", trial.loss, "Mean cross-entropy in nats, with the fitted temperature."),
                scalar_pb("validation/accuracy", trial.accuracy, "Share of correct predictions."),
            ]
        for summary in summaries:
            own = Summary.FromString(summary.SerializeToString())
            writer.add_event(Event(wall_time=time.time(), step=0, summary=own))
        writer.close()


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
