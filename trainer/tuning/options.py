"""How a search is run. This module imports nothing that takes time, so that wrong flags are reported at once."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from trainer.errors import ConfigError

Sampler = Literal["tpe", "qmc"]


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search."""

    trials: int = 12
    """How many different settings to try."""
    sampler: Sampler = "tpe"
    """tpe models which settings are good and draws near them; qmc spreads the trials evenly."""
    prune: bool = True
    """Whether trials that are clearly worse stop early."""
    jobs: int = 1
    """How many trials to train at once."""
    finalists: int = 3
    """How many of the best are trained with several seeds."""
    seeds: int = 3
    """How many seeds each finalist gets, the given one included."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1:
                raise ConfigError(f"{field.name} is {value}; expected a number above 0")
