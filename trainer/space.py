"""What a search varies: `--vary` texts -> the config of each trial."""

import dataclasses
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.config import MAY_CHANGE, ConfigError, TrainConfig

COMPARABLE = {"dataset", "validation_size"}
"""What must be the same for validation losses to be comparable."""


@dataclass(frozen=True)
class Choice:
    """One of several values, all as likely."""

    name: str
    values: tuple[Any, ...]

    def at(self, position: float) -> Any:
        """The value at `position`, 0 <= position < 1."""
        return self.values[int(position * len(self.values))]


@dataclass(frozen=True)
class Range:
    """A number between two others, evenly or evenly on a logarithmic scale."""

    name: str
    low: float
    high: float
    is_log: bool
    is_whole: bool

    def at(self, position: float) -> int | float:
        """The number at `position`, 0 <= position < 1, to three digits, which are enough and can be read."""
        if self.is_log:
            value = self.low * (self.high / self.low) ** position
        else:
            value = self.low + (self.high - self.low) * position
        return round(value) if self.is_whole else float(f"{value:.3g}")


Dimension = Choice | Range


def parse(text: str) -> Dimension:
    """The dimension that a text describes: NAME=A,B,C or NAME=LOW:HIGH or NAME=LOW:HIGH:log.

    Raises:
        ConfigError: no such setting, one that must not vary, or values that it cannot have.
    """
    name, equals, values = text.partition("=")
    hints = typing.get_type_hints(TrainConfig)
    if not equals or name not in hints:
        raise ConfigError(
            f"--vary {text}: expected NAME=A,B,C or NAME=LOW:HIGH[:log], NAME a setting of `train --help`"
        )
    if name in MAY_CHANGE | COMPARABLE:
        raise ConfigError(
            f"--vary {text}: {name} is not part of what is compared; vary what decides how a model learns"
        )
    kinds = typing.get_args(hints[name]) if isinstance(hints[name], types.UnionType) else (hints[name],)
    if ":" not in values:
        return Choice(name, tuple(_value(text, kinds, part) for part in values.split(",")))
    low, high, *scale = values.split(":")
    if scale not in ([], ["log"]) or kinds[0] not in (int, float):
        raise ConfigError(f"--vary {text}: expected NAME=LOW:HIGH or NAME=LOW:HIGH:log, of numbers")
    dimension = Range(name, _value(text, (float,), low), _value(text, (float,), high), bool(scale), kinds[0] is int)
    if not dimension.low < dimension.high < math.inf or (scale and dimension.low <= 0):
        raise ConfigError(f"--vary {text}: expected LOW < HIGH, and 0 < LOW on a logarithmic scale")
    return dimension


def plan(config: TrainConfig, dimensions: Sequence[Dimension], trials: int) -> list[TrainConfig]:
    """The config of each trial; the first has the settings of `config` itself.

    Raises:
        ConfigError: some values cannot be, or not together.
    """
    changed = [{}, *(sample(dimensions, config.seed, trial) for trial in range(1, trials))]
    return [
        dataclasses.replace(config, **values, run=f"{config.run}-{number:03}", publish=False)
        for number, values in enumerate(changed)
    ]


def sample(dimensions: Sequence[Dimension], seed: int, trial: int) -> dict[str, Any]:
    """The settings of a trial: a function of (seed, trial), so that more trials only add to those there were."""
    positions = np.random.Generator(np.random.Philox(key=[seed, trial])).random(len(dimensions))
    return {dimension.name: dimension.at(position) for dimension, position in zip(dimensions, positions, strict=True)}


def _value(text: str, kinds: tuple[Any, ...], part: str) -> Any:
    if bool in kinds:
        if part not in ("true", "false"):
            raise ConfigError(f"--vary {text}: {part!r} is neither true nor false")
        return part == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(part)
            except ValueError as error:
                raise ConfigError(f"--vary {text}: {part!r} is not a number ({kind.__name__})") from error
    return part
