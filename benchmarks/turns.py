"""What the training benchmarks share: cases that take turns on the machine, a table, and the JSON file beside it.

A case is a function that runs in a process of its own, so that no case sees the devices, the memory or the compiled
functions of another. All cases stay alive; one works while the others wait. In every round each takes one turn, in
opposite order every second round, so that a slow moment or a slow drift of the machine hits all of them. The first
turns, in which TensorFlow traces and warms up, are not counted.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import TrainConfig
from trainer.data.idx import read_idx_folder
from trainer.data.split import Split

Case = tuple[Callable[..., None], tuple[Any, ...]]
"""A function to be called with a `Turns` first, and its other arguments."""


class Turns:
    """A case's side of the conversation; `wait` raises EOFError when the benchmark is over."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def wait(self) -> None:
        """Return when it is this case's turn to work."""
        self._connection.recv()

    def report(self, images_per_second: float) -> None:
        """End the turn."""
        self._connection.send(images_per_second)


def measure(cases: dict[str, Case], rounds: int) -> dict[str, list[float]]:
    """Images per second of each case in each round.

    Raises:
        RuntimeError: a case's process ended; why is on standard error.
    """
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
        process.join(30)  # the closed connection ends it
    return rates


def _take_turns(connection: Connection, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(EOFError):
        work(Turns(connection), *arguments)


def train_in_turns(turns: Turns, config: TrainConfig, data_dir: Path | None, steps_per_turn: int, rounds: int) -> None:
    """Run `trainer.training.loop.train` itself, halted between two of its calls whenever a turn's steps are done.

    A turn's speed is that of the compiled calls as the trainer times them.
    """
    from trainer.runs.tracking import RunTracker
    from trainer.training.distribute import choose_devices
    from trainer.training.loop import train

    devices = choose_devices(config.strategy, config.replicas)
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

    few = Split(split.images[:500], split.labels[:500])  # evaluations are not timed, but would take time
    with tempfile.TemporaryDirectory() as folder, RunTracker(Path(folder), {}, stream=io.StringIO()) as tracker:
        train(config, split, few, devices, tracker, stop_requested=halt_between_turns)


def training_split(data_dir: Path | None) -> Split:
    """The training split of a folder of IDX files, or as many random images as MNIST has."""
    if data_dir:
        return read_idx_folder(data_dir)[0]
    random = np.random.default_rng(0)
    return Split(random.integers(0, 256, (60_000, 28, 28), np.uint8), random.integers(0, 10, 60_000, np.uint8))


def argument_parser(description: str | None, *, rounds: int, steps: int | None = None) -> argparse.ArgumentParser:
    """A parser with the flags that several benchmarks have; `--steps` only where a number is given."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each case (default: %(default)s)")
    if steps:
        parser.add_argument("--steps", type=int, default=steps, help="training steps in a turn (default: %(default)s)")
        parser.add_argument(
            "--data-dir", type=Path, help="folder of IDX files (default: random images of MNIST's size)"
        )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser


def machine() -> str:
    """One line about where the figures come from."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "by TensorFlow's choice")  # `import trainer` sets it
    return (
        f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
        f"TensorFlow {version('tensorflow')}, Keras {version('keras')}, oneDNN {onednn}"
    )


def print_rates(rates: dict[str, list[float]], reference: Callable[[str], str]) -> dict[str, dict[str, float]]:
    """Print median, range and ratio of each case to its reference's median; returns the same as plain values."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    width = max(map(len, rates))
    print(f"{'':{width}}  images/s      (lowest - highest)   ratio")
    for name, values in rates.items():
        ratio = medians[name] / medians[reference(name)]
        print(f"{name:{width}}  {medians[name]:8,.0f}  {min(values):8,.0f} - {max(values):8,.0f}  {ratio:6.2f}")
    return {
        name: {"images_per_second": median, "ratio": median / medians[reference(name)]}
        for name, median in medians.items()
    }


def write_json(file: Path | None, **figures: object) -> None:
    """Write the figures, if a file is wanted."""
    if file:
        file.write_text(json.dumps(figures, indent=2, default=str) + "\n")
