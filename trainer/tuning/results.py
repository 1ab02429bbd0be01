"""What the trials of a search have shown: scores, intervals, comparisons, the table and its warnings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from percent import percent
from trainer.config import TrainConfig
from trainer.errors import ExitCode
from trainer.evaluation.metrics import TEMPERATURE_RANGE
from trainer.run import VALIDATION_LOSSES_FILE
from trainer.runs.result import TRIAL_FILE, RunResult, read_result, refuse_other_data

Z_95 = 1.96
"""Two-sided 95 % quantile of the normal distribution."""

AT_BOUND = 0.01
"""A fitted temperature within this share of a bound counts as on it."""


@dataclass(frozen=True)
class Score:
    """One trained network of a trial, on the validation split with the temperature that fits it best there."""

    run_dir: Path
    seed: int
    loss: float
    """Mean cross-entropy in nats."""
    accuracy: float
    temperature: float
    losses: np.ndarray
    """float32 [N]: the cross-entropy of each validation example."""


@dataclass(frozen=True)
class Trial:
    """One of a search's settings, with one network or with one for each seed."""

    number: int
    run_dir: Path
    settings: dict[str, Any]
    """The values of what is varied."""
    outcome: str
    """"trained", "stopped early", "diverged" or "out of memory"."""
    scores: tuple[Score, ...]
    """One per seed; none unless the outcome is "trained"."""

    @property
    def loss(self) -> float:
        """Mean validation loss over the seeds; infinite without a score."""
        return float(np.mean([score.loss for score in self.scores])) if self.scores else math.inf

    @property
    def accuracy(self) -> float:
        """Mean validation accuracy over the seeds; NaN without a score."""
        return float(np.mean([score.accuracy for score in self.scores])) if self.scores else math.nan

    @property
    def margin(self) -> float:
        """Half of the loss's 95 % interval: from the spread of the examples, and of the seeds if there are several."""
        if not self.scores:
            return math.nan
        examples = np.mean([score.losses for score in self.scores], axis=0)
        return Z_95 * math.sqrt(np.var(examples, ddof=1) / len(examples) + _variance_of_mean(self))


def read_trial(number: int, settings: dict[str, Any], configs: Sequence[TrainConfig]) -> Trial | None:
    """Return a trial from the folders of its runs, one per seed; None unless the first of them has ended.

    Raises:
        ConfigError: its runs were trained on different data.
    """
    results = [(config, read_result(config.run_dir / TRIAL_FILE)) for config in configs]
    first = results[0][1]
    if not first or not is_result(first):
        return None
    trained = [(config, result) for config, result in results if result and result.validation]
    refuse_other_data([(config.run_dir, result) for config, result in trained])
    scores = [
        Score(
            run_dir=config.run_dir,
            seed=config.seed,
            loss=result.validation["loss"],
            accuracy=result.validation["accuracy"],
            temperature=result.validation["temperature"],
            losses=np.fromfile(config.run_dir / VALIDATION_LOSSES_FILE, np.float32),
        )
        for config, result in trained
    ]
    outcomes = {ExitCode.DIVERGED: "diverged", ExitCode.MEMORY: "out of memory"}
    outcome = "trained" if first.validation else outcomes.get(ExitCode(first.exit_code), "stopped early")
    return Trial(number, configs[0].run_dir, settings, outcome, tuple(scores) if first.validation else ())


def is_result(result: RunResult) -> bool:
    """Return whether a trial's record is of one that has ended, and not of one that was interrupted or failed."""
    return result.exit_code in (ExitCode.OK, ExitCode.DIVERGED, ExitCode.MEMORY)


def rank(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials, best first: those with several seeds before the others, since the best of many are lucky."""
    return sorted(trials, key=lambda trial: (-len(trial.scores), trial.loss))


def difference(first: Trial, second: Trial) -> tuple[float, float]:
    """Return how much more loss `second` has than `first` on the same examples, and half of its 95 % interval."""
    pairs = [np.mean([score.losses for score in trial.scores], axis=0) for trial in (first, second)]
    examples = pairs[1].astype(np.float64) - pairs[0]
    variance = np.var(examples, ddof=1) / len(examples) + _variance_of_mean(first) + _variance_of_mean(second)
    return float(examples.mean()), Z_95 * math.sqrt(variance)


def warn(ranked: Sequence[Trial]) -> list[str]:
    """Return what a reader of the table must know: a lead that may be chance, a temperature on its bound."""
    scored, warnings = [trial for trial in ranked if trial.scores], []
    if len(scored) > 1:
        first, second = scored[:2]
        lead, margin = difference(first, second)
        if lead <= margin:
            examples = len(first.scores[0].losses)
            warnings.append(
                f"{examples} validation digits and {len(first.scores)} seed(s) cannot tell {first.run_dir.name} from "
                f"{second.run_dir.name}: their losses differ by {lead:.4f} +- {margin:.4f}. Raise --validation-size or "
                "--seeds"
            )
    for score in scored[0].scores if scored else ():
        if any(abs(score.temperature / bound - 1) < AT_BOUND for bound in TEMPERATURE_RANGE):
            low, high = TEMPERATURE_RANGE
            warnings.append(
                f"the temperature fitted for {score.run_dir.name}, {score.temperature:.2f}, is at a bound of {low:g} to "
                f"{high:g}: its loss says little about its confidence. Raise --validation-size, or train for less long"
            )
    return warnings


def table(ranked: Sequence[Trial]) -> str:
    """Return the trials as lines of text."""
    rows = [["run", "seeds", "loss", "+-", "accuracy", *ranked[0].settings]]
    for trial in ranked:
        values = [str(value) for value in trial.settings.values()]
        scores = [f"{trial.loss:.4f}", f"{trial.margin:.4f}", percent(trial.accuracy)]
        shown = scores if trial.scores else [trial.outcome, "", ""]
        rows.append([trial.run_dir.name, str(len(trial.scores) or 1), *shown, *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def to_json(trial: Trial) -> dict[str, Any]:
    """Return plain values for trials.json; what is unknown is null."""
    return {
        "run_dir": str(trial.run_dir),
        "number": trial.number,
        "settings": trial.settings,
        "outcome": trial.outcome,
        "loss": trial.loss if trial.scores else None,
        "margin_95": trial.margin if trial.scores else None,
        "accuracy": trial.accuracy if trial.scores else None,
        "seeds": [
            {
                "run_dir": str(score.run_dir),
                "seed": score.seed,
                "loss": score.loss,
                "accuracy": score.accuracy,
                "temperature": score.temperature,
            }
            for score in trial.scores
        ],
    }


def _variance_of_mean(trial: Trial) -> float:
    """Variance of the mean loss over the seeds; 0 with one seed, which shows no spread."""
    losses = [score.loss for score in trial.scores]
    return float(np.var(losses, ddof=1)) / len(losses) if len(losses) > 1 else 0.0
