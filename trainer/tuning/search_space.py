"""What a search varies: `--vary` texts -> the config of each trial."""

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.config import MAY_CHANGE, ConfigError, TrainConfig

FIXED = {"dataset", "validation_size", "deterministic"}
"""What must be the same in all trials: their losses could not be compared, or it cannot be undone in a process."""


@dataclass(frozen=True)
class Choice:
    """One of several values, all as often."""

    name: str
    values: tuple[Any, ...]
    is_log = False

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values that can be wrong: all of them."""
        return self.values

    def at(self, position: float) -> Any:
        """The value at `position`, 0 <= position < 1."""
        return self.values[int(position * len(self.values))]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, evenly or evenly on a logarithmic scale."""

    name: str
    low: float
    high: float
    is_log: bool
    is_whole: bool

    @property
    def extremes(self) -> tuple[int | float, ...]:
        """The values that can be wrong where those between are right."""
        return self.at(0.0), self.at(math.nextafter(1.0, 0.0))

    def at(self, position: float) -> int | float:
        """The number at `position`, 0 <= position < 1, with no more digits than tell a thousand of them apart."""
        if self.is_log:
            value = self.low * (self.high / self.low) ** position
            return round(value) if self.is_whole else self._within(float(f"{value:.4g}"))
        if self.is_whole:
            return int(self.low + (self.high + 1 - self.low) * position)
        span = self.high - self.low
        return self._within(round(self.low + span * position, 3 - math.floor(math.log10(span))))

    def _within(self, value: float) -> float:
        return min(max(value, self.low), self.high)


Dimension = Choice | Range


def parse(text: str) -> Dimension:
    """The dimension that a text describes: NAME=A,B,C or NAME=LOW:HIGH or NAME=LOW:HIGH:log.

    Raises:
        ConfigError: no such setting, one that must not vary, or no values of its kind.
    """
    name, equals, values = text.partition("=")
    hints = typing.get_type_hints(TrainConfig)
    if not equals or name not in hints:
        raise ConfigError(
            f"--vary {text}: expected NAME=A,B,C or NAME=LOW:HIGH[:log], NAME a setting of `train --help`"
        )
    if name in MAY_CHANGE | FIXED:
        raise ConfigError(f"--vary {text}: {name} must be the same in all trials; vary what decides how a model learns")
    kind = hints[name]
    if ":" not in values:
        return Choice(name, tuple(_value(text, kind, part) for part in values.split(",")))
    low, high, *scale = values.split(":")
    if scale not in ([], ["log"]) or kind not in (int, float):
        raise ConfigError(f"--vary {text}: expected NAME=LOW:HIGH or NAME=LOW:HIGH:log, of numbers")
    dimension = Range(name, _value(text, kind, low), _value(text, kind, high), bool(scale), kind is int)
    if not dimension.low < dimension.high or (scale and dimension.low <= 0):
        raise ConfigError(f"--vary {text}: expected LOW < HIGH, and 0 < LOW on a logarithmic scale")
    return dimension


def plan(config: TrainConfig, dimensions: Sequence[Dimension], trials: int) -> list[TrainConfig]:
    """The configs of at most `trials` trials, all different; the first has the settings of `config` itself.

    The others' are a function of their number and of the config's seed, so that more trials only add to those there were.

    Raises:
        ConfigError: a setting is varied twice, or some values cannot be, or not together.
    """
    names = [dimension.name for dimension in dimensions]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"--vary {', '.join(sorted(doubled))}: given twice; give each setting all its values at once")
    for dimension in dimensions:
        for value in dimension.extremes:  # a value that cannot be shows now, and not at the trial that draws it
            alone: dict[str, Any] = {dimension.name: value}
            dataclasses.replace(config, **alone)
    different: dict[tuple[Any, ...], TrainConfig] = {}
    for number in range(trials):
        values = sample(dimensions, config.seed, number) if number else {}
        trial = dataclasses.replace(config, **values, run=f"{config.run}-{number:03}")
        different.setdefault(tuple(getattr(trial, name) for name in names), trial)
    return list(different.values())


def sample(dimensions: Sequence[Dimension], seed: int, number: int) -> dict[str, Any]:
    """The settings of one trial: the term `number` of an additive recurrence with a random start.

    Its terms lie more evenly than random ones, in all dimensions together and however many there are: Martin Roberts'
    generalised golden ratio, http://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences/.
    """
    ratio = 2.0
    for _ in range(64):  # to the root of x ** (dimensions + 1) = x + 1
        ratio = (1 + ratio) ** (1 / (len(dimensions) + 1))
    start = np.random.Generator(np.random.Philox(key=seed)).random(len(dimensions))
    positions = ((start + number * ratio ** -np.arange(1.0, len(dimensions) + 1)) % 1).tolist()
    return {dimension.name: dimension.at(position) for dimension, position in zip(dimensions, positions, strict=True)}


def _value(text: str, kind: Any, part: str) -> Any:
    if kind is bool:
        if part not in ("true", "false"):
            raise ConfigError(f"--vary {text}: {part!r} is neither true nor false")
        return part == "true"
    if kind in (int, float):
        try:
            value = kind(part)
        except ValueError as error:
            raise ConfigError(f"--vary {text}: {part!r} is not a number ({kind.__name__})") from error
        if not abs(value) < 1e100:
            raise ConfigError(f"--vary {text}: {part!r} is too large")
        return value
    return part
