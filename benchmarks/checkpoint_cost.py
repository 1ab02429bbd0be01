"""Training speed of a preset, by default `accurate`: without checkpoints, every 15 s as by default, and every second.

    $ python -m benchmarks.checkpoint_cost --data-dir mnist/

prints the machine, the data, and

                                images/s      (lowest - highest)   ratio
    no checkpoints                   ...        ... -      ...      1.00
    every 15 s, the default          ...        ... -      ...       ...   (target: at least 0.98)
    every second                     ...        ... -      ...       ...
    one checkpoint: ... ms of CPU time, ... % of the default interval

The table is in wall time, because a checkpoint has two parts: the state is copied between two compiled calls, and a
thread writes it while training continues. A turn of the default length takes longer than the default interval. The last
line is in CPU time, for the copy and the writing together, so it holds on a busy machine too.
"""

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

from percent import percent
from testbed.report import argument_parser, machine, print_rates, write_json
from testbed.turns import Case, Turns, add_preset, measure, training_split
from trainer.config import TrainConfig, resolve
from trainer.data.split import Split, Splits

NONE, DEFAULT = "no checkpoints", f"every {TrainConfig().checkpoint_seconds:g} s, the default"
INTERVALS = {NONE: 0.0, DEFAULT: TrainConfig().checkpoint_seconds, "every second": 1.0}
TARGET = 0.98
"""Lowest ratio at the default interval that the project promises."""


def main() -> None:
    """Measure, print the table and the verdict, write the JSON."""
    parser = argument_parser(__doc__, rounds=5, steps=400)
    add_preset(parser)
    args = parser.parse_args()
    data = str(args.data_dir or "random images of MNIST's size")
    where = machine()
    print(f"{where}\n{args.preset}, data: {data}; {args.rounds} rounds of {args.steps} steps", flush=True)
    cases: dict[str, Case] = {
        name: (
            train_with_checkpoints,
            (resolve(args.preset, flags={"checkpoint_seconds": seconds}), args.data_dir, args.steps, args.rounds),
        )
        for name, seconds in INTERVALS.items()
    }
    rates = measure(cases, args.rounds)
    figures = print_rates(rates, reference=lambda _: NONE)
    verdict = "holds" if figures[DEFAULT]["ratio"] >= TARGET else "MISSED"
    milliseconds = 1000 * cpu_seconds(resolve(args.preset))
    share = milliseconds / 1000 / INTERVALS[DEFAULT]
    print(f"one checkpoint: {milliseconds:.0f} ms of CPU time, {percent(share)} of the default interval")
    print(f"{DEFAULT}: target of {TARGET:.2f} {verdict}")
    write_json(
        args.json,
        machine=where,
        data=data,
        steps=args.steps,
        cases=figures,
        target=TARGET,
        rounds=rates,
        cpu_milliseconds=milliseconds,
    )


def cpu_seconds(config: TrainConfig, times: int = 20) -> float:
    """Median CPU time of one checkpoint in seconds, from the first copy to the last byte."""
    import tensorflow as tf

    from trainer.runs.checkpoint import write_checkpoint
    from trainer.training.model import build_model
    from trainer.training.optimizer import build_optimizer, learning_rates
    from trainer.training.train_state import TrainingState

    model = build_model(config.model, width=config.width, dropout=config.dropout)
    optimizer = build_optimizer(config, learning_rates(100, config))
    optimizer.build(model.trainable_variables)
    ema_weights = [tf.Variable(weight.numpy()) for weight in model.weights]
    state = TrainingState([*model.variables, *optimizer.variables, *ema_weights], steps=100)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(times):
            started = time.process_time()
            write_checkpoint(Path(folder), state.capture())
            seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def train_with_checkpoints(
    turns: Turns, config: TrainConfig, data_dir: Path | None, steps_per_turn: int, rounds: int
) -> None:
    """Run `trainer.training.loop.train`, and pause it between two calls whenever the steps of a turn are done."""
    from trainer.runs.checkpoint import Checkpoints
    from trainer.runs.tracking import RunTracker
    from trainer.training.distribute import choose_devices
    from trainer.training.loop import Hooks, train

    split = training_split(data_dir)
    most_steps = (rounds + 1) * (steps_per_turn + config.steps_per_call)  # A turn ends when a call ends.
    config = dataclasses.replace(config, epochs=most_steps * config.global_batch_size / len(split))
    began, first_step = 0.0, 0

    def halt_between_turns() -> bool:
        nonlocal began, first_step
        step = tracker.rows[-1]["step"] if tracker.rows else 0
        if step - first_step >= steps_per_turn:
            turns.report((step - first_step) * config.global_batch_size / (time.perf_counter() - began))
            began = 0.0
        if not began:
            turns.wait()
            began, first_step = time.perf_counter(), step
        return False

    few = Split(split.images[:500], split.labels[:500])
    with tempfile.TemporaryDirectory() as folder, RunTracker(Path(folder)) as tracker:
        seconds, kept = config.checkpoint_seconds, config.checkpoints_kept
        checkpoints = Checkpoints(
            Path(folder), {}, every_seconds=seconds, every_steps=0, keep=kept, before_write=tracker.sync
        )
        hooks = Hooks(tracker=tracker, checkpoints=checkpoints, stop_requested=halt_between_turns)
        train(config, Splits(split, few, few), choose_devices(), hooks)


if __name__ == "__main__":
    main()
