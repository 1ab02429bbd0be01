"""What a run in training is at one moment: its variables and its progress, and their way into a checkpoint and back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.runs.checkpoint import Checkpoint


@dataclass
class Best:
    """The best evaluation so far, for early stopping."""

    loss: float = np.inf
    weights: list[np.ndarray] = field(default_factory=list)
    evaluations_since: int = 0


@dataclass
class TrainingState:
    """Everything that changes while a run trains; all else that it computes with is a function of config and step."""

    variables: Sequence[Any]
    """The network's (weights, batch norm's statistics, the seeds of dropout), the optimizer's, and the moving averages."""
    steps: int
    """Steps that the whole run has."""
    step: int = 0
    """Steps that have run."""
    seconds: float = 0.0
    """Wall time of those steps."""
    losses: list[np.ndarray] = field(default_factory=list)
    """Training loss of each step, float32 [steps], in pieces."""
    best: Best = field(default_factory=Best)
    ended_early: bool = False
    """Whether early stopping has ended the training."""

    @property
    def is_trained(self) -> bool:
        """Whether no step is left to run."""
        return self.ended_early or self.step == self.steps

    def capture(self) -> Checkpoint:
        """A copy that goes on meaning this moment while training changes the variables."""
        arrays = {f"variable.{i}": np.array(variable.numpy()) for i, variable in enumerate(self.variables)}
        arrays |= {f"best.{i}": weight for i, weight in enumerate(self.best.weights)}
        arrays["losses"] = np.concatenate([np.empty(0, np.float32), *self.losses])
        facts = {
            "seconds": self.seconds,
            "ended_early": self.ended_early,
            "is_trained": self.is_trained,
            "best_loss": self.best.loss,
            "evaluations_since_best": self.best.evaluations_since,
        }
        return Checkpoint(self.step, arrays, facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over what `capture` saw."""
        arrays, facts = checkpoint.arrays, checkpoint.facts
        for i, variable in enumerate(self.variables):
            variable.assign(arrays[f"variable.{i}"])
        self.step, self.seconds, self.ended_early = checkpoint.step, facts["seconds"], facts["ended_early"]
        self.losses = [arrays["losses"]]
        weights = [arrays[f"best.{i}"] for i in range(sum(name.startswith("best.") for name in arrays))]
        self.best = Best(facts["best_loss"], weights, facts["evaluations_since_best"])
