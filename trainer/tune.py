"""A search for better settings: train with many, compare them on validation data alone.

Random search: of the few settings that matter, N trials try N different values each, where a grid of as many would try a
handful (Bergstra and Bengio, 2012). Trial 0 has the settings as they were given, so that the best has something to beat.

A trial is a run like any other, in <artifacts>/runs/<run>-<number>/, trained to its end, stopped and resumed as `train`
is; the search started again goes on with the first trial that is not finished. The test split is not looked at: the best
trial meets it when its run is published.
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

from trainer.checkpoint import refuse_others
from trainer.config import TrainConfig, resolve, what_it_computes
from trainer.durable import write_atomically
from trainer.exit_codes import ExitCode
from trainer.figures import trials as draw
from trainer.run import train_for_search
from trainer.run_folder import RESULT_FILE, open_run_folder, read_record, recorded
from trainer.space import Dimension
from trainer.train import DivergedError


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


def search(configs: Sequence[TrainConfig], dimensions: Sequence[Dimension], folder: Path, now: datetime) -> list[Trial]:
    """Run the trials that are not finished; returns all of them, the best first.

    After each trial `folder` has trials.json and trials.png of those there are.

    Raises:
        ConfigError: there is a run of that name with other settings.
        DivergedError: every trial diverged.
        StoppedError: a signal came; the trial's state has been saved.
        RunError: the data cannot be read.
    """
    # Each trial compiles functions of its own, which TensorFlow, after a few, warns of as a mistake.
    tf.get_logger().setLevel(logging.ERROR)
    done: list[Trial] = []
    for number, config in enumerate(configs):
        settings = {dimension.name: getattr(config, dimension.name) for dimension in dimensions}
        result = _result_of(config)
        if "validation" not in result and result.get("exit_code") != ExitCode.DIVERGED:
            result = _run(config, now)
        score = result.get("validation", {"loss": math.inf, "accuracy": 0.0})
        done.append(Trial(config.run_dir, settings, score["loss"], score["accuracy"]))
        best = min(done, key=lambda trial: trial.loss)
        print(
            f"trial {number + 1} of {len(configs)}: {_describe(done[-1])}{' *' if done[-1] is best else ''}", flush=True
        )
        _write(folder, done)
    if math.isinf(best.loss):
        raise DivergedError(f"all of the {len(done)} trials diverged; vary learning_rate over lower values")
    return sorted(done, key=lambda trial: trial.loss)


def table(trials: Sequence[Trial]) -> str:
    """The trials as lines of text."""
    names = list(trials[0].settings)
    lines = [f"{'run':28}{'loss':>9}{'accuracy':>10}  " + "".join(f"{name:>16}" for name in names)]
    for trial in trials:
        values = "".join(f"{trial.settings[name]!s:>16}" for name in names)
        lines.append(f"{trial.run_dir.name:28}{trial.loss:9.4f}{trial.accuracy:10.2%}  {values}")
    return "\n".join(lines)


def _run(config: TrainConfig, now: datetime) -> dict[str, Any]:
    keras.utils.clear_session()  # or the graphs of all trials would stay in memory
    with open_run_folder(config, now) as config:
        try:
            with recorded(config.run_dir / RESULT_FILE, now) as record:
                train_for_search(config, record)
        except DivergedError:
            pass  # a result too, and recorded as one
        return read_record(config.run_dir / RESULT_FILE)


def _result_of(config: TrainConfig) -> dict[str, Any]:
    saved = config.run_dir / "config.json"
    if saved.is_file():
        refuse_others(what_it_computes(resolve(file=saved)), what_it_computes(config), f"run {config.run!r}")
    return read_record(config.run_dir / RESULT_FILE)


def _describe(trial: Trial) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
    outcome = f"loss {trial.loss:.4f}, accuracy {trial.accuracy:.2%}" if math.isfinite(trial.loss) else "diverged"
    return f"{outcome} ({settings})"


def _write(folder: Path, trials: Sequence[Trial]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**dataclasses.asdict(trial), "run_dir": str(trial.run_dir)} for trial in trials]
    rows = [{**row, "loss": row["loss"] if math.isfinite(row["loss"]) else None} for row in rows]
    write_atomically(folder / "trials.json", lambda partial: partial.write_text(json.dumps(rows, indent=2) + "\n"))
    figure = draw([trial.settings for trial in trials], [trial.loss for trial in trials])
    write_atomically(folder / "trials.png", lambda partial: figure.savefig(partial, dpi=110, format="png"))
