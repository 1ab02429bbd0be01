"""What a search varies: `--vary` texts -> dimensions, and the settings that a dimension allows."""

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.config import MAY_CHANGE, TrainConfig
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import Trial

FIXED = {"dataset", "validation_size", "deterministic"}
"""Settings that all trials share: with other data, or other arithmetic, their losses could not be compared."""


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    name: str
    values: tuple[Any, ...]
    is_log = False

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values to check before a search: all of them."""
        return self.values

    @property
    def size(self) -> float:
        """How many different values there are."""
        return len(set(self.values))

    def suggest(self, trial: "Trial") -> None:
        """Have Optuna draw a value for a trial."""
        trial.suggest_categorical(self.name, self.values)

    def random(self, generator: np.random.Generator) -> Any:
        """Return a random setting."""
        return self.values[int(generator.integers(len(self.values)))]

    def contains(self, value: Any) -> bool:
        """Return whether the dimension allows a value."""
        return value in self.values

    def setting(self, value: Any) -> Any:
        """Return the setting for a value that Optuna drew."""
        return value


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, evenly or evenly on a logarithmic scale."""

    name: str
    low: float
    high: float
    is_log: bool
    is_whole: bool

    @property
    def extremes(self) -> tuple[float, ...]:
        """The values to check before a search: if both ends can work, so can those between; see `check_values`."""
        return self.low, self.high

    @property
    def size(self) -> float:
        """How many different values there are."""
        return self.high - self.low + 1 if self.is_whole else math.inf

    def suggest(self, trial: "Trial") -> None:
        """Have Optuna draw a value for a trial."""
        if self.is_whole:
            trial.suggest_int(self.name, int(self.low), int(self.high), log=self.is_log)
        else:
            trial.suggest_float(self.name, self.low, self.high, log=self.is_log)

    def random(self, generator: np.random.Generator) -> int | float:
        """Return a random setting."""
        if self.is_whole:
            return int(generator.integers(int(self.low), int(self.high) + 1))
        return self.setting(float(generator.uniform(self.low, self.high)))

    def contains(self, value: Any) -> bool:
        """Return whether the dimension allows a value."""
        return self.low <= value <= self.high

    def setting(self, value: float) -> int | float:
        """Return the setting for a value that Optuna drew, with no more digits than tell a thousand of them apart."""
        if self.is_whole:
            return int(value)
        digits = 3 - math.floor(math.log10(self.high - self.low))
        rounded = float(f"{value:.4g}") if self.is_log else round(value, digits)
        return min(max(rounded, self.low), self.high)


Dimension = Choice | Range


def parse(text: str) -> Dimension:
    """Return the dimension that a text describes: NAME=A,B,C or NAME=LOW:HIGH or NAME=LOW:HIGH:log.

    Raises:
        ConfigError: no such setting, one that all trials share, or no values of its kind.
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


def check_values(config: TrainConfig, dimensions: Sequence[Dimension]) -> None:
    """Check before the first trial that every dimension has values that can work.

    Raises:
        ConfigError: a setting is varied twice, or a value of it cannot work.
    """
    names = [dimension.name for dimension in dimensions]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"--vary {', '.join(sorted(repeated))}: given twice; give each setting all its values at once"
        )
    for dimension in dimensions:
        if isinstance(dimension, Range) and dimension.name == "global_batch_size" and config.replicas > 1:
            raise ConfigError(
                f"--vary global_batch_size={dimension.low}:{dimension.high} with {config.replicas} replicas: most numbers "
                f"between them are no multiple of {config.replicas}; name the values: global_batch_size=A,B,C"
            )
        for value in dimension.extremes:
            alone: dict[str, Any] = {dimension.name: value}
            dataclasses.replace(config, **alone)


def settings_of(config: TrainConfig, dimensions: Sequence[Dimension]) -> dict[str, Any]:
    """Return the values that a config has of what is varied."""
    return {dimension.name: getattr(config, dimension.name) for dimension in dimensions}


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
        if math.isnan(value):
            raise ConfigError(f"--vary {text}: {part!r} is not a number ({kind.__name__})")
        if not abs(value) < 1e100:
            raise ConfigError(f"--vary {text}: {part!r} is too large")
        return value
    return part
