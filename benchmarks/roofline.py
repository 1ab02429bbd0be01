"""How far each preset's training step is from this CPU's peak, and where the rest of its time goes.

    $ python -m benchmarks.roofline --data-dir mnist/

prints the machine, its peak in float32 and bfloat16, and

                precision  batch  GFLOP   ms/step  images/s  GFLOP/s  of peak  augmentation  optimizer   input
    sprint      ...          ...    ...       ...       ...      ...    ... %         ... %      ... %   ... %

The peak is the best of several products of two 2,048x2,048 matrices. GFLOP are the multiplications and additions of the
convolutions and dense layers of one step, forwards and backwards; everything else is not counted, so "of peak" is the
share of the step in which the arithmetic that cannot be avoided would be done at the peak.

The shares come from leaving a part out, in the same process and in turns: augmentation = the step without it; input = one
batch that stays in memory instead of tf.data's. The optimizer is timed alone, on constant gradients. Medians over rounds.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable

from percent import percent
from testbed.report import argument_parser, machine, write_json
from testbed.turns import training_split
from trainer.config import TrainConfig, resolve
from trainer.data.split import Split
from trainer.presets import PRESETS
from trainer.settings import AugmentationSettings

MATRIX = 2048
"""Side of the matrices whose product gives the peak."""


def main() -> None:
    """Measure the peak and each preset, print a line each, write the JSON."""
    parser = argument_parser(__doc__, rounds=5, steps=32)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["quickstart", "sprint", "fast", "accurate"])
    args = parser.parse_args()
    where = machine()
    print(where, flush=True)
    peaks = {dtype: peak(dtype, args.rounds) for dtype in ("float32", "bfloat16")}
    print("peak: " + ", ".join(f"{value / 1e9:.0f} GFLOP/s in {dtype}" for dtype, value in peaks.items()) + "\n")
    print(
        f"{'':12}precision       batch  GFLOP  ms/step  images/s  GFLOP/s  of peak  augmentation  optimizer  input",
        flush=True,
    )
    split = training_split(args.data_dir)
    rows = {}
    for preset in args.presets:
        config = resolve(preset, flags={"strategy": "default", "replicas": 1})
        row = rows[preset] = measure_step(config, split, args.steps, args.rounds)
        row["of_peak"] = (
            row["flop"] / row["seconds"] / peaks["bfloat16" if "bfloat16" in row["precision"] else "float32"]
        )
        print(
            f"{preset:12}{row['precision']:14}  {config.global_batch_size:5}  {row['flop'] / 1e9:5.1f}  "
            f"{1e3 * row['seconds']:7.1f}  {config.global_batch_size / row['seconds']:8,.0f}  "
            f"{row['flop'] / row['seconds'] / 1e9:7.0f}  {percent(row['of_peak'], 0):>7}  "
            f"{percent(row['augmentation'], 0):>12}  {percent(row['optimizer'], 0):>9}  {percent(row['input'], 0):>5}",
            flush=True,
        )
    write_json(args.json, machine=where, peaks=peaks, presets=rows)


def peak(dtype: str, rounds: int) -> float:
    """Floating-point operations a second of the fastest matrix product."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.stateless_uniform((MATRIX, MATRIX), (0, 0)), dtype)
    multiply = tf.function(lambda: tf.reduce_sum(tf.linalg.matmul(matrix, matrix)))
    return 2 * MATRIX**3 / min(_seconds(lambda: multiply().numpy()) for _ in range(rounds + 1))


def measure_step(config: TrainConfig, split: Split, steps: int, rounds: int) -> dict:
    """Time the step of a preset, and the step without some of its parts.

    Returns:
        `seconds` of a step, its `flop`, its `precision`, and the shares of `augmentation`, `optimizer` and `input`.
    """
    import tensorflow as tf

    from trainer.precision import fixed_precision
    from trainer.training.distribute import choose_devices
    from trainer.training.input_pipeline import ReplicaSlice, replica_datasets
    from trainer.training.loop import build_learner
    from trainer.training.optimizer import learning_rates
    from trainer.training.train_step import StepSettings, compile_steps

    devices = choose_devices(config)
    all_steps = steps * (rounds + 1)
    learner = build_learner(config, learning_rates(4 * all_steps, config), devices)
    part = ReplicaSlice(config.seed, config.global_batch_size, 0, 1)
    settings = StepSettings(
        augmentation=config,
        augmented_steps=all_steps,
        label_smoothing=config.label_smoothing,
        ema_decay=config.ema_decay,
        deterministic=False,
        jit_compile=False,
    )
    plain = dataclasses.replace(settings, augmentation=AugmentationSettings())
    [dataset] = replica_datasets(split, range(all_steps), [part], devices.names)
    resident = tf.data.Dataset.from_tensors(next(iter(dataset))).repeat()

    def steps_on(settings: StepSettings, dataset: tf.data.Dataset) -> Callable[[], object]:
        run_steps = compile_steps(learner, settings, {0: (part, iter(dataset))}, devices.strategy)
        return lambda: run_steps(tf.constant(steps)).losses.numpy()

    weights = learner.model.trainable_variables
    gradients = [tf.random.stateless_normal(weight.shape, (0, 0), stddev=1e-3) for weight in weights]

    @tf.function
    def optimize() -> None:
        for _ in tf.range(steps):
            learner.optimizer.apply(gradients, weights)

    cases = {
        "whole": steps_on(settings, dataset),
        "resident": steps_on(settings, resident),
        "plain": steps_on(plain, resident),
        "optimizer": optimize,
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, run in cases.items():
            took = _seconds(run)
            if turn:  # The first turn compiles.
                seconds[name].append(took / steps)
    whole, in_memory, unaugmented, optimizer = (statistics.median(seconds[name]) for name in cases)
    return {
        "precision": fixed_precision(config.precision),
        "flop": training_flop(learner.model) * config.global_batch_size,
        "seconds": whole,
        "augmentation": (in_memory - unaugmented) / whole,
        "optimizer": optimizer / whole,
        "input": (whole - in_memory) / whole,
        "rounds": seconds,
    }


def training_flop(model) -> float:
    """Floating-point operations of the convolutions and dense layers for one image, forwards and backwards.

    The gradient by a kernel and the one by the layer's input take as many operations as the layer itself. The first layer
    with weights needs no gradient by its input.
    """
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    forwards = []
    for layer in layers:
        positions = math.prod(layer.output.shape[1:-1])
        forwards.append(2.0 * positions * math.prod(layer.kernel.shape))
    return 3 * sum(forwards) - forwards[0]


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
