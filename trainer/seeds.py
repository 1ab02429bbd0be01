"""`python -m trainer train --seeds N`: how good a recipe is, and how much of that is the luck of a seed.

    one config -> N runs that differ in the seed -> test accuracy and seconds of each -> mean, sd, 95 % interval

    seed  test accuracy  training s
    0           99.20 %        27.1
    1           99.30 %        26.8
    mean        99.25 %        27.0
    sd           0.07 %         0.2

A seed decides initial weights, order, augmentation and dropout. Each run, <artifacts>/runs/<run>-seed<k>/, is what
`train --seed k --no-publish` makes, in a process of its own. After a stop or a kill, the same command leaves finished runs
as they are and resumes the unfinished one. All runs are in the table: nothing is chosen by the test split.
"""

import dataclasses
import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from percent import percent
from trainer.command_line import command_line
from trainer.config import TrainConfig, refuse_mismatch, resolve, what_it_computes
from trainer.errors import ConfigError, ExitCode
from trainer.precision import fixed_precision
from trainer.run import train_run
from trainer.runs.atomic import write_atomically
from trainer.runs.console import Console, LogFormat, aligned
from trainer.runs.folder import CONFIG_FILE
from trainer.runs.result import RESULT_FILE, RunResult, read_result, refuse_other_data
from trainer.runs.signals import StoppedError
from trainer.tuning.pool import LOCK_SECONDS, Pool, Task, TrialError

FORMAT = 1
"""Version of the summary's JSON form."""

CONFIDENCE = 0.95
"""Of the interval of the mean."""


@dataclass(frozen=True)
class SeedRun:
    """A run that was trained to its end, and its result."""

    config: TrainConfig
    result: RunResult

    @property
    def test_accuracy(self) -> float:
        """Share of the test digits that are read correctly."""
        return self.result.evaluation["accuracy"]

    @property
    def training_seconds(self) -> float:
        """Wall time of the training steps, the compilation included, evaluations not."""
        return self.result.training["seconds"]


@dataclass(frozen=True)
class Summary:
    """Mean and spread of the test accuracies."""

    mean: float
    sd: float
    """Standard deviation of the sample, with N - 1."""
    interval: tuple[float, float]
    """Of the mean, by Student's t distribution, within 0 to 1: 95 % of such intervals contain the mean over all seeds."""


def train_seeds(config: TrainConfig, seeds: int, now: datetime, log_format: LogFormat, console: Console) -> None:
    """Train `seeds` runs that differ only in the seed, print their scores, and write <artifacts>/seeds/<run>.json.

    Args:
        config: the settings; its seed is the first one, and an empty run name is filled in.
        seeds: how many.
        now: the time that names the runs.
        log_format: of the progress.
        console: prints the results.

    Raises:
        ConfigError: fewer than two seeds, or a run of such a name has other settings or other data.
        TrialError: a run failed.
        StoppedError: a signal came; the state of the run has been saved.
    """
    if seeds < 2:
        raise ConfigError(f"--seeds is {seeds}; expected at least 2, since one run shows no spread")
    run = config.run or f"{config.preset}-{now:%Y%m%d-%H%M%S}"
    # On another machine, "auto" may be another precision: the runs would not be of one recipe.
    config = dataclasses.replace(config, precision=fixed_precision(config.precision))
    configs = [
        dataclasses.replace(config, seed=seed, run=f"{run}-seed{seed}", publish=False)
        for seed in range(config.seed, config.seed + seeds)
    ]
    left = [each for each in configs if not _read_finished(each)]
    first = configs[0].run_dir
    resume = command_line("train", "--config", first / CONFIG_FILE, "--seeds", seeds, "--run", run)
    console.facts({"seeds": f"{seeds} runs, {len(left)} left to train", "resume": resume})
    try:
        Pool(1, first.parent, log_format, TASK).train(
            iter(left), on_validation=lambda *_: False, on_end=lambda name: _refuse_failure(first.parent / name)
        )
    except StoppedError as stopped:
        raise StoppedError(f"{stopped}; the state is saved\nresume with: {resume}") from stopped
    finished = [SeedRun(each, result) for each in configs if (result := _read_finished(each))]
    refuse_other_data([(each.config.run_dir, each.result) for each in finished])
    _report(config.artifacts / "seeds" / f"{run}.json", run, finished, console)


def summarize(accuracies: Sequence[float]) -> Summary:
    """Return mean, standard deviation and interval of at least two accuracies."""
    from scipy.stats import t  # takes a second: not for a wrong flag

    mean, sd = statistics.fmean(accuracies), statistics.stdev(accuracies)
    margin = float(t.ppf((1 + CONFIDENCE) / 2, len(accuracies) - 1)) * sd / math.sqrt(len(accuracies))
    return Summary(mean, sd, (max(0.0, mean - margin), min(1.0, mean + margin)))


def _train_seed(config: TrainConfig, now: datetime, console: Console, _: object) -> None:
    train_run(config, now, os.environ, console, LOCK_SECONDS)


TASK = Task(_train_seed, RESULT_FILE)


def _read_finished(config: TrainConfig) -> RunResult | None:
    """Return the result of a run that was trained to its end; None if it is left to train.

    Raises:
        ConfigError: a run of that name has other settings, or an earlier version of the trainer made it.
    """
    result = read_result(config.run_dir / RESULT_FILE)
    if not result or result.exit_code != ExitCode.OK:
        return None
    if not result.training:
        raise ConfigError(f"{config.run_dir}: its result has no training time; give these runs another --run")
    saved = resolve(file=config.run_dir / CONFIG_FILE)
    refuse_mismatch(what_it_computes(saved), what_it_computes(config), f"run {config.run!r}")
    return result


def _refuse_failure(run_dir: Path) -> None:
    """Refuse to continue without a seed: the mean of the others would be too good.

    Raises:
        TrialError: the run failed.
    """
    result = read_result(run_dir / RESULT_FILE)
    if result and result.exit_code != ExitCode.OK:
        raise TrialError(f"{run_dir.name}: {result.message}", ExitCode(result.exit_code))


def _report(path: Path, run: str, runs: Sequence[SeedRun], console: Console) -> None:
    accuracy = summarize([each.test_accuracy for each in runs])
    low, high = accuracy.interval
    seconds = [each.training_seconds for each in runs]
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(_to_json(run, runs, accuracy), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text))
    rows = [
        ["seed", "test accuracy", "training s"],
        *([str(each.config.seed), percent(each.test_accuracy), f"{each.training_seconds:.1f}"] for each in runs),
        ["mean", percent(accuracy.mean), f"{statistics.fmean(seconds):.1f}"],
        ["sd", percent(accuracy.sd), f"{statistics.stdev(seconds):.1f}"],
    ]
    machines = dict.fromkeys(_computed_with(each) for each in runs)  # several, if they were resumed elsewhere
    console.note("\n".join(("", *machines, aligned(rows))))
    console.note(
        f"95 % interval of the mean test accuracy: {percent(low)} to {percent(high)}.",
        style="bold green",
        test_accuracy=accuracy.mean,
        test_accuracy_interval_95=[low, high],
    )
    console.note(f"{'Summary:':<12} {path}")
    console.note(f"Nothing is published. To publish one run: {command_line('publish', runs[0].config.run_dir)}")


def _computed_with(run: SeedRun) -> str:
    facts = run.result.environment
    versions = ", ".join(f"{name} {facts[name]}" for name in ("tensorflow", "keras", "numpy"))
    return f"{run.config.preset} on {run.config.dataset}; {facts['machine']}; Python {facts['python']}, {versions}"


def _to_json(run: str, runs: Sequence[SeedRun], accuracy: Summary) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "run": run,
        "preset": runs[0].config.preset,
        "dataset": runs[0].config.dataset,
        "data": runs[0].result.data,
        "test_accuracy": {"mean": accuracy.mean, "sd": accuracy.sd, "interval_95": accuracy.interval},
        "seeds": [
            {
                "seed": each.config.seed,
                "run_dir": str(each.config.run_dir),
                "test_accuracy": each.test_accuracy,
                "training_seconds": each.training_seconds,
                "environment": each.result.environment,
            }
            for each in runs
        ],
    }
