"""A search for better settings: train with many, compare them on validation data alone.

Of the few settings that matter, N trials spread over all of them try some N values each, where a grid of as many would
try a handful (Bergstra and Bengio, 2012, for random ones). The first trial has the settings as they were given: what the
best has to beat.

A trial is a run like any other, <artifacts>/runs/<run>-<number>/, trained to its end, stopped and resumed as `train` does
it, with a record of its own beside `train`'s; the search started again goes on with the first trial that is not finished.
The test split is not looked at: the best trial meets it when its run is published.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from trainer.config import ConfigError, TrainConfig, refuse_mismatch, resolve, what_it_computes
from trainer.errors import ExitCode, OutOfMemoryError
from trainer.evaluation.figures import trials as draw
from trainer.percent import percent
from trainer.run import train_trial
from trainer.runs.atomic import write_atomically
from trainer.runs.console import Console
from trainer.runs.folder import open_run_folder, refuse_full_disk
from trainer.runs.result import RESULT_FILE, TRIAL_FILE, RunResult, read_result
from trainer.training.loop import DivergedError
from trainer.tuning.search_space import Dimension


@dataclass(frozen=True)
class Trial:
    """One of a search's runs, finished."""

    run_dir: Path
    settings: dict[str, Any]
    """The values of what is varied."""
    loss: float
    """Mean cross-entropy on the validation split in nats, with the temperature fitted there; infinite if it diverged."""
    accuracy: float
    """On the validation split; 0 if it diverged."""


def search(
    configs: Sequence[TrainConfig], dimensions: Sequence[Dimension], folder: Path, now: datetime, console: Console
) -> list[Trial]:
    """Run the trials that are not finished; returns all of them, the best first.

    After each one that it runs, `folder` has trials.json and trials.png of those there are.

    Raises:
        ConfigError: a run of that name is none of this search's, or has other settings or other data.
        DivergedError: every trial diverged.
        StoppedError: a signal came; the trial's state has been saved.
        RunError: the data cannot be read, or the disk is full.
    """
    results = [_result_of(config) for config in configs]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {error.filename or folder}: {error.strerror}") from error
    refuse_full_disk(folder)
    # Each trial compiles functions of its own, which TensorFlow, after a few, warns of as a mistake.
    tf.get_logger().setLevel(logging.ERROR)
    console.note(f"{len(configs)} different trials, in {configs[0].run_dir} and so on")
    done: list[Trial] = []
    data: dict[str, str] = {}
    for number, (config, result) in enumerate(zip(configs, results, strict=True), start=1):
        if is_new := not _is_finished(result):
            result = _run(config, now, console)
        result = result or RunResult()
        if data and result.data and result.data != data:
            raise ConfigError(
                f"{config.run_dir}: was trained on other data than {configs[0].run_dir}; nothing to compare"
            )
        data = data or result.data
        score = result.validation or {"loss": math.inf, "accuracy": 0.0}
        settings = {dimension.name: getattr(config, dimension.name) for dimension in dimensions}
        done.append(Trial(config.run_dir, settings, score["loss"], score["accuracy"]))
        best = min(done, key=lambda trial: trial.loss)
        remark = ", the best so far" if done[-1] is best and math.isfinite(best.loss) else ""
        console.note(f"trial {number} of {len(configs)}: {_describe(done[-1])}{remark}")
        if is_new or number == len(configs):
            _write(folder, done, dimensions)
    if math.isinf(best.loss):
        raise DivergedError(f"all of the {len(done)} trials diverged; vary learning_rate over lower values")
    return sorted(done, key=lambda trial: trial.loss)


def table(trials: Sequence[Trial]) -> str:
    """The trials as lines of text."""
    rows = [["run", "loss", "accuracy", *trials[0].settings]]
    for trial in trials:
        values = [str(value) for value in trial.settings.values()]
        rows.append([trial.run_dir.name, f"{trial.loss:.4f}", percent(trial.accuracy), *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _run(config: TrainConfig, now: datetime, console: Console) -> RunResult | None:
    keras.utils.clear_session()  # or the graphs of all trials would stay in memory
    with open_run_folder(config, now) as config:
        try:
            return train_trial(config, now, console)
        except (DivergedError, OutOfMemoryError):  # A result too: it is recorded as one.
            return read_result(config.run_dir / TRIAL_FILE)


def _result_of(config: TrainConfig) -> RunResult | None:
    saved, result = config.run_dir / "config.json", read_result(config.run_dir / TRIAL_FILE)
    if not result and (config.run_dir / RESULT_FILE).is_file():
        raise ConfigError(f"{config.run_dir}: is a run of `train`; give this search another --run")
    if saved.is_file():
        refuse_mismatch(what_it_computes(resolve(file=saved)), what_it_computes(config), f"run {config.run!r}")
    return result


def _is_finished(result: RunResult | None) -> bool:
    return result is not None and (bool(result.validation) or result.exit_code in (ExitCode.DIVERGED, ExitCode.MEMORY))


def _describe(trial: Trial) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
    outcome = f"loss {trial.loss:.4f}, accuracy {percent(trial.accuracy)}" if math.isfinite(trial.loss) else "diverged"
    return f"{outcome} ({settings})"


def _write(folder: Path, trials: Sequence[Trial], dimensions: Sequence[Dimension]) -> None:
    rows = [{**dataclasses.asdict(trial), "run_dir": str(trial.run_dir)} for trial in trials]
    rows = [{**row, "loss": row["loss"] if math.isfinite(row["loss"]) else None} for row in rows]
    write_atomically(folder / "trials.json", lambda partial: partial.write_text(json.dumps(rows, indent=2) + "\n"))
    varied = {
        dimension.name: ([trial.settings[dimension.name] for trial in trials], dimension.is_log)
        for dimension in dimensions
    }
    figure = draw(varied, [trial.loss for trial in trials])
    write_atomically(folder / "trials.png", lambda partial: figure.savefig(partial, dpi=110, format="png"))
