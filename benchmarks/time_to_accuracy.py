"""How soon 99 %: the recipe of the Keras documentation's MNIST convnet against our presets `sprint` and `fast`, in turns.

    $ python -m benchmarks.time_to_accuracy --data-dir mnist/

prints the machine, every round as it goes, and

                             training s  test accuracy
    Keras recipe, epoch 1           ...            ...
    ...
    sprint                          ...            ...
    fast                            ...            ...
    sprint: 99.0 % reached ... times sooner

The baseline is that example's recipe in our own words (keras.io/examples/vision/mnist_convnet): conv 3x3-32, pool, conv
3x3-64, pool, dropout 0.5, dense 10; Adam with its defaults, batch 128, a tenth held out for validation, `model.fit`. It
runs in the same process with the same environment, so it too gets oneDNN, which the trainer switches on.

Both clocks count training steps, compilation included, and leave out every evaluation. The baseline is scored on the
test split after each epoch, and its time to 99 % is the first epoch that reaches it, although nobody could have stopped
there without looking at the test split; ours is scored once, after its whole schedule. Medians over the rounds.
"""

import dataclasses
import math
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from percent import percent
from testbed.report import argument_parser, machine, write_json
from trainer.config import TrainConfig, resolve
from trainer.data.load import load_splits, read_dataset
from trainer.data.split import Split, Splits
from trainer.precision import Precision
from trainer.presets import PRESETS

if TYPE_CHECKING:
    from trainer.training.distribute import Devices

Point = tuple[float, float]
"""Seconds of training so far, and test accuracy then."""


def main() -> None:
    """Alternate baseline and presets, print each round and the summary, write the JSON."""
    parser = argument_parser(__doc__, rounds=1)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the four IDX files")
    parser.add_argument("--epochs", type=int, default=12, help="of the baseline (default: %(default)s)")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["sprint", "fast"], help="(default: both)")
    parser.add_argument(
        "--precision", choices=get_args(Precision), help="float32: as on a CPU without bfloat16 (default: the presets')"
    )
    parser.add_argument("--target", type=float, default=0.99, help="test accuracy to reach (default: %(default)s)")
    parser.add_argument("--figure", type=Path, metavar="FILE.svg", help="draw accuracy against seconds there")
    args = parser.parse_args()
    where = machine()
    print(where, flush=True)

    from trainer.training.distribute import choose_devices

    flags: dict[str, object] = {"dataset": "idx", "data_dir": args.data_dir}
    if args.precision:
        flags["precision"] = args.precision
    configs = {preset: resolve(preset, flags=flags) for preset in args.presets}
    validation_size = min(config.validation_size for config in configs.values())
    whole_train, test = read_dataset("idx", args.data_dir)
    validation_size = min(validation_size, len(whole_train) // 10)
    splits = {
        preset: load_splits("idx", args.data_dir, validation_size, config.pen_weight)
        for preset, config in configs.items()
    }
    devices = choose_devices()
    baselines: list[list[Point]] = []
    ours: dict[str, list[Point]] = {preset: [] for preset in configs}
    for seed in range(args.rounds):
        baselines.append(fit_baseline(whole_train, test, args.epochs, seed))
        print(
            f"round {seed + 1}, Keras recipe: " + ", ".join(f"{s:.1f} s {percent(a)}" for s, a in baselines[-1]),
            flush=True,
        )
        for preset, config in configs.items():
            seconds, accuracy = train_and_score(dataclasses.replace(config, seed=seed), splits[preset], devices)
            ours[preset].append((seconds, accuracy))
            print(f"round {seed + 1}, {preset}: {seconds:.1f} s {percent(accuracy)}", flush=True)
    _print_table(baselines, ours)
    verdicts = {preset: compare(baselines, points, args.target) for preset, points in ours.items()}
    for preset, verdict in verdicts.items():
        print(f"{preset}: {verdict['sentence']}")
    if args.figure:
        draw(baselines, ours, args.target, args.figure)
    write_json(args.json, machine=where, target=args.target, verdicts=verdicts, keras_recipe=baselines, presets=ours)


def fit_baseline(train: Split, test: Split, epochs: int, seed: int) -> list[Point]:
    """Fit the recipe; one point per epoch."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    train_images, test_images = (split.images[..., None].astype("float32") / 255 for split in (train, test))
    points: list[Point] = []

    class Clock(keras.callbacks.Callback):
        """Counts from an epoch's start to the start of its validation, then scores the test split."""

        seconds = 0.0

        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:  # noqa: ARG002
            self.started = time.perf_counter()

        def on_test_begin(self, logs: dict | None = None) -> None:  # noqa: ARG002
            self.seconds += time.perf_counter() - self.started

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:  # noqa: ARG002
            digits = model.predict(test_images, batch_size=500, verbose=0).argmax(axis=1)
            points.append((self.seconds, float((digits == test.labels).mean())))

    fit = {"batch_size": 128, "epochs": epochs, "validation_split": 0.1}
    model.fit(train_images, train.labels, **fit, callbacks=[Clock()], verbose=0)
    return points


def train_and_score(config: TrainConfig, splits: Splits, devices: "Devices") -> tuple[float, float]:
    """Train a preset; return the seconds of its training, and its accuracy on the whole test split."""
    from trainer.evaluation.metrics import evaluate
    from trainer.evaluation.predict import compile_predict
    from trainer.training.loop import Hooks, train

    trained = train(config, splits, devices, Hooks())
    return trained.seconds, evaluate(compile_predict(trained.model), splits.test).accuracy


def compare(baselines: list[list[Point]], ours: list[Point], target: float) -> dict[str, object]:
    """Return how many times sooner the preset reaches the target, by the medians of the rounds' seconds.

    A round that does not reach it counts as infinitely long; where that makes the baseline's median infinite, the figure
    is a lower bound, from all the seconds that the baseline ran.
    """
    theirs = statistics.median(next((s for s, a in points if a >= target), math.inf) for points in baselines)
    mine = statistics.median(s if a >= target else math.inf for s, a in ours)
    reached = theirs < math.inf
    times = (theirs if reached else statistics.median(points[-1][0] for points in baselines)) / mine
    best = max(a for points in baselines for _, a in points)
    if mine == math.inf:
        sentence = f"the preset did not reach {percent(target, 1)}"
    elif reached:
        sentence = f"{percent(target, 1)} reached {times:.1f} times sooner: {mine:.1f} s instead of {theirs:.1f} s"
    else:
        sentence = (
            f"{percent(target, 1)} reached in {mine:.1f} s; the Keras recipe did not reach it in "
            f"{len(baselines[0])} epochs (best {percent(best)}), so that is more than {times:.1f} times sooner"
        )
    return {
        "sentence": sentence,
        "keras_recipe_seconds": theirs if reached else None,
        "preset_seconds": mine if mine < math.inf else None,
        "times_sooner": times or None,
        "is_lower_bound": not reached,
    }


def draw(baselines: list[list[Point]], ours: dict[str, list[Point]], target: float, file: Path) -> None:
    """Draw test accuracy against seconds of training, every round of both, legible on a light and on a dark page."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    grey = "#808080"
    parts = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    with matplotlib.rc_context(dict.fromkeys(parts, grey) | {"svg.hashsalt": "time_to_accuracy", "font.size": 11}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for points in baselines:
            axes.plot(*zip(*points, strict=True), color=grey, alpha=0.4, linewidth=1)
        medians = [[statistics.median(c) for c in zip(*epoch, strict=True)] for epoch in zip(*baselines, strict=True)]
        label = f"Keras documentation's recipe, after each epoch ({len(baselines)} seeds)"
        axes.plot(*zip(*medians, strict=True), color=grey, marker="o", markersize=4, label=label)
        for (preset, points), color in zip(ours.items(), ("#0f9d76", "#e07b00", "#3b82d0", "#b04ec4"), strict=False):
            axes.scatter(
                *zip(*points, strict=True), color=color, s=28, label=f"{preset} ({len(points)} seeds)", zorder=3
            )
        axes.axhline(target, color=grey, linestyle="--", linewidth=1)
        axes.set_xscale("log")
        ticks = [seconds for seconds in (1, 2, 5, 10, 20, 50, 100, 200, 500) if seconds < 2 * baselines[0][-1][0]]
        axes.set_xticks(ticks, [str(seconds) for seconds in ticks])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(MultipleLocator(0.005))
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=1, symbol=" %"))
        axes.set(xlabel="seconds of training (logarithmic)", ylabel="MNIST test accuracy")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper left", frameon=False)
        figure.savefig(file, transparent=True, metadata={"Date": None})


def _print_table(baselines: list[list[Point]], ours: dict[str, list[Point]]) -> None:
    rows = {f"Keras recipe, epoch {n}": points for n, points in enumerate(zip(*baselines, strict=True), start=1)}
    print(f"\n{'':24}  training s  test accuracy")
    for name, points in {**rows, **ours}.items():
        seconds, accuracy = (statistics.median(column) for column in zip(*points, strict=True))
        print(f"{name:24}  {seconds:10.1f}  {percent(accuracy):>13}")


if __name__ == "__main__":
    main()
