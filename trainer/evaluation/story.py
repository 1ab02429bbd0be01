"""What a run's report and its model card tell besides its scores."""

from dataclasses import dataclass, field
from typing import Any

from trainer.config import TrainConfig


@dataclass(frozen=True)
class Story:
    """The facts of a run that its report and its model card show."""

    config: TrainConfig
    outcome: str
    """One sentence: the version that was published, or why none was."""
    succeeded: bool
    facts: dict[str, str]
    """Name and value: data, model, devices, times."""
    gate: dict[str, Any] = field(default_factory=dict)
    """What the gate required and compared, as `trainer.publishing.gate.Verdict.to_json()` has it; empty without a gate."""
    environment: dict[str, str] = field(default_factory=dict)
    """What the run was computed with, as `trainer.runs.environment.environment()` has it."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each split."""
