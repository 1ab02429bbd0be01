"""Measure the speed of several cases that take turns on the machine; the training benchmarks use it.

A case is a function that runs in a process of its own, so that no case sees the devices, the memory or the compiled
functions of another. All processes stay alive; one works while the others wait. In every round each case takes one turn,
and every second round runs in the opposite order, so that a slow moment or a slow drift of the machine affects all cases.
The first round, in which TensorFlow traces and warms up, is not counted.
"""

import argparse
import contextlib
import dataclasses
import multiprocessing
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import TrainConfig
from trainer.data.idx import read_idx_folder
from trainer.data.split import Split, Splits
from trainer.presets import PRESETS

Case = tuple[Callable[..., None], tuple[Any, ...]]
"""A function, and its arguments after the first, which is a `Turns`."""


class Turns:
    """The connection of a case to the benchmark; `wait` raises EOFError when the benchmark has ended."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def wait(self) -> None:
        """Block until it is this case's turn to work."""
        self._connection.recv()

    def report(self, images_per_second: float) -> None:
        """End the turn and report its speed."""
        self._connection.send(images_per_second)


def measure(cases: dict[str, Case], rounds: int) -> dict[str, list[float]]:
    """Measure the images per second of each case in each round.

    Raises:
        RuntimeError: a case's process ended; its standard error says why.
    """
    # Not forked: CUDA, which the import of TensorFlow starts, does not survive a fork.
    context = multiprocessing.get_context("spawn")
    connections, processes = {}, []
    with contextlib.ExitStack() as stack:
        for name, (work, arguments) in cases.items():
            ours, theirs = context.Pipe()
            connections[name] = stack.enter_context(ours)
            processes.append(context.Process(target=_take_turns, args=(theirs, work, arguments), daemon=True))
            processes[-1].start()
            theirs.close()
        rates: dict[str, list[float]] = {name: [] for name in cases}
        for round_number in range(rounds + 1):
            for name in list(cases)[:: 1 if round_number % 2 else -1]:
                try:
                    connections[name].send("go")
                    rate = connections[name].recv()
                except (EOFError, BrokenPipeError) as error:
                    raise RuntimeError(f"the case {name!r} failed in round {round_number}") from error
                if round_number:
                    rates[name].append(rate)
    for process in processes:
        process.join(30)  # it ends because its connection is closed
    return rates


def _take_turns(connection: Connection, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(EOFError):
        work(Turns(connection), *arguments)


def train_in_turns(turns: Turns, config: TrainConfig, data_dir: Path | None, steps_per_turn: int, rounds: int) -> None:
    """Run `trainer.training.loop.train` itself, and halt it between two compiled calls when a turn's steps are done.

    The speed of a turn is that of the compiled calls, as the trainer times them.
    """
    from trainer.runs.tracking import RunTracker
    from trainer.training.distribute import choose_devices
    from trainer.training.loop import Hooks, train

    devices = choose_devices(config)
    split = training_split(data_dir)
    most_steps = (rounds + 1) * (steps_per_turn + config.steps_per_call)  # a turn ends with a call
    config = dataclasses.replace(config, epochs=most_steps * config.global_batch_size / len(split))
    reported = 0

    def halt_between_turns() -> bool:
        nonlocal reported
        rows = [row for row in tracker.rows if row["kind"] == "train"]
        steps = np.diff([row["step"] for row in rows], prepend=0)[reported:]
        if rows and steps.sum() >= steps_per_turn:
            seconds = steps / [row["images_per_second"] for row in rows[reported:]] * config.global_batch_size
            turns.report(float(steps.sum() * config.global_batch_size / seconds.sum()))
            reported = len(rows)
        if reported == len(rows):
            turns.wait()
        return False

    few = Split(split.images[:500], split.labels[:500])  # evaluation is not timed; few images keep it short
    with tempfile.TemporaryDirectory() as folder, RunTracker(Path(folder)) as tracker:
        train(config, Splits(split, few, few), devices, Hooks(tracker=tracker, stop_requested=halt_between_turns))


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Add the flag `--preset`: what the cases train."""
    parser.add_argument("--preset", choices=PRESETS, default="accurate", help="what to train (default: %(default)s)")


def training_split(data_dir: Path | None) -> Split:
    """Return the training split of a folder of IDX files, or as many random images as MNIST has."""
    if data_dir:
        return read_idx_folder(data_dir)[0]
    random = np.random.default_rng(0)
    return Split(random.integers(0, 256, (60_000, 28, 28), np.uint8), random.integers(0, 10, 60_000, np.uint8))
