"""The state of a training run: its variables and its progress, and how they get into a checkpoint and back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.runs.checkpoint import Checkpoint

REVISION = 4
"""Raised when the same settings begin to compute something else: a run is not resumed across such a change."""


@dataclass
class Best:
    """The best evaluation so far, for early stopping."""

    loss: float = np.inf
    weights: list[np.ndarray] = field(default_factory=list)
    evaluations_since: int = 0


@dataclass
class TrainingState:
    """Everything that changes while a run trains; the rest is a function of config and step."""

    variables: Sequence[Any]
    """Of the model (with batch norm's statistics and dropout's seeds), of the optimizer, and the averages."""
    steps: int
    """Number of steps of the complete run."""
    step: int = 0
    """Number of steps that have run."""
    seconds: float = 0.0
    """Wall time of those steps."""
    losses: list[np.ndarray] = field(default_factory=list)
    """Training loss of each step: arrays float32, to be concatenated."""
    best: Best = field(default_factory=Best)
    ended_early: bool = False
    """Whether early stopping has ended the training."""

    @property
    def is_finished(self) -> bool:
        """Whether no steps are left to run."""
        return self.ended_early or self.step == self.steps

    def capture(self) -> Checkpoint:
        """Return a copy of the state, which stays as it is while training changes the variables."""
        arrays = {f"variable.{i}": np.array(variable.numpy()) for i, variable in enumerate(self.variables)}
        arrays |= {f"best.{i}": weight for i, weight in enumerate(self.best.weights)}
        arrays["losses"] = np.concatenate([np.empty(0, np.float32), *self.losses])
        facts = {
            "seconds": self.seconds,
            "ended_early": self.ended_early,
            "is_trained": self.is_finished,
            "best_loss": self.best.loss,
            "evaluations_since_best": self.best.evaluations_since,
        }
        return Checkpoint(self.step, arrays, facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set the state to the one that was captured."""
        arrays, facts = checkpoint.arrays, checkpoint.facts
        for i, variable in enumerate(self.variables):
            variable.assign(arrays[f"variable.{i}"])
        self.step, self.seconds, self.ended_early = checkpoint.step, facts["seconds"], facts["ended_early"]
        self.losses = [arrays["losses"]]
        weights = [arrays[f"best.{i}"] for i in range(sum(name.startswith("best.") for name in arrays))]
        self.best = Best(facts["best_loss"], weights, facts["evaluations_since_best"])
