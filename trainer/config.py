"""The config of a run: all settings together, made of a preset, a file and flags.

Precedence: preset < `--config FILE` < flags. The result is saved as `config.json` in the run's folder and can be given
back with `--config`.
"""

import dataclasses
import json
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.precision import AUTO
from trainer.presets import PRESETS
from trainer.settings import (
    AugmentationSettings,
    CheckpointSettings,
    DataSettings,
    GateSettings,
    ModelSettings,
    OptimizerSettings,
    PathSettings,
    RuntimeSettings,
    check_fields,
)

COMPLETE = "complete"
"""A saved config says `"complete": true`: it names every setting, so no preset is applied below it."""

MAX_EPOCHS = 1_000_000
"""More would need more memory for the numbers of their steps than a machine has."""

EARLIER_NAMES = {
    "pen_pixels": "stroke_width_jitter_pixels",
    "gaps": "stroke_gap_fraction",
    "flags": "serif_ones_fraction",
    "coarse": "low_resolution_fraction",
    "clean_epochs": "unaugmented_epochs",
}
"""Earlier name -> current name of a setting: config files and checkpoints with the earlier names can still be read."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    GateSettings,
    CheckpointSettings,
    RuntimeSettings,
    AugmentationSettings,
    OptimizerSettings,
    ModelSettings,
    DataSettings,
    PathSettings,
):
    """Everything that decides what a run computes and where it writes.

    Raises:
        ConfigError: a value that cannot work; the message names it.
    """

    def __post_init__(self) -> None:
        check_fields(self)
        if self.epochs > MAX_EPOCHS:
            raise ConfigError(f"epochs is {self.epochs:g}; expected at most {MAX_EPOCHS:,}")
        if self.seed >= 2**32:
            raise ConfigError(f"seed is {self.seed}; expected a number below 2**32")
        for name in ("run", "model_name"):
            value = getattr(self, name)
            if "/" in value or value.startswith((".", "-")):  # In a command, -x would be a flag.
                raise ConfigError(
                    f"{name} is {value!r}; expected a plain folder name, without '/' and not starting with '.' or '-'"
                )
        if not self.model_name:
            raise ConfigError("model_name is empty; expected the name of the served model")
        if self.keep_versions == 1:
            raise ConfigError(
                "keep_versions is 1; expected at least 2, since the server serves the version before the newest until it "
                "has loaded the newest; 0 keeps all"
            )
        if self.profile and not (re.fullmatch(r"\d{1,9}:\d{1,9}", self.profile) and self.profiled_steps):
            raise ConfigError(f"profile is {self.profile!r}; expected START:STOP, two step numbers, START below STOP")
        if self.replicas > 1 and self.strategy == "default":
            raise ConfigError(f"strategy is 'default' with {self.replicas} replicas; expected 'mirrored' or 'auto'")
        replicas = max(self.replicas, 1)
        if self.global_batch_size % replicas:
            raise ConfigError(
                f"global_batch_size is {self.global_batch_size} with {replicas} replicas; "
                f"expected a multiple of {replicas}"
            )


MAY_CHANGE = frozenset(field.name for field in dataclasses.fields(TrainConfig) if field.metadata["may_change"])
"""Settings with which a run can be resumed at another value: they do not change what it computes."""

MAIN_SETTINGS = frozenset(
    {"dataset", "model", "width", "dropout", "epochs", "global_batch_size", "learning_rate", "weight_decay", "seed"}
)
"""Settings by which runs are compared even where they have their defaults."""

MINOR_SETTINGS = frozenset({"beta_1", "beta_2", "deterministic", "jit_compile", "steps_per_call"})
"""Settings that are in the config alone: most of them change how a run computes, not what it learns."""


def resolve(preset: str | None = None, file: Path | None = None, flags: dict[str, Any] | None = None) -> TrainConfig:
    """Merge preset, file and flags; later ones win.

    Args:
        preset: name of a preset; None takes the one that the file names, else quickstart.
        file: JSON object of settings. A config that a run saved is complete: it needs no preset, and the name of that
            run is not taken over.
        flags: settings given on the command line.

    Raises:
        ConfigError: unknown preset or setting, unreadable file, or a value that cannot work.
    """
    saved = _read(file) if file else {}
    is_complete = saved.pop(COMPLETE, False)
    if is_complete:
        saved.pop("run", None)
    name = saved.get("preset", preset) if is_complete else preset or saved.get("preset")
    name = name or "quickstart"
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
    base = {} if is_complete else PRESETS[name]
    return TrainConfig(**{**base, **saved, **(flags or {}), "preset": name})


def what_it_computes(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that decide what a run computes: they must stay the same when it is resumed."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in MAY_CHANGE}


def hyperparameters(config: TrainConfig) -> dict[str, Any]:
    """Return the settings to compare runs by: the main ones, and others that are not at their defaults.

    TensorBoard's hparams tab has a column for each. It shows first what differs between the runs, then sorts by name, so
    a setting that seldom matters would stand before those that do.
    """
    defaults = what_it_computes(TrainConfig())
    return {
        name: value
        for name, value in what_it_computes(config).items()
        if name in MAIN_SETTINGS or (name not in MINOR_SETTINGS and value != defaults[name])
    }


def differences(saved: dict[str, Any], current: dict[str, Any]) -> str:
    """Return the settings and other facts that differ between a saved run and the current one; empty if none does.

    A setting that `saved` lacks was added later; its default preserves the earlier behaviour.
    """
    defaults = what_it_computes(TrainConfig())
    saved = {**defaults, **{EARLIER_NAMES.get(name, name): value for name, value in saved.items()}}
    current = {**defaults, **current}
    if current["precision"] == AUTO:
        current["precision"] = saved["precision"]
    names = sorted(name for name in current if saved.get(name) != current[name])
    return ", ".join(f"{name} was {saved.get(name)!r} and is {current[name]!r}" for name in names)


def refuse_mismatch(saved: dict[str, Any], current: dict[str, Any], where: str) -> None:
    """Refuse to resume from what was computed with other settings or other data.

    Raises:
        ConfigError: naming each difference.
    """
    if found := differences(saved, current):
        raise ConfigError(f"{where} cannot be resumed: {found}; set them back, or give this run another --run")


def as_flags(config: TrainConfig) -> list[str]:
    """Return the flags that give the same settings again, without the paths and the name of the run."""
    base = resolve(config.preset)
    flags = ["--preset", config.preset]
    for name in dataclasses.asdict(config):
        value = getattr(config, name)
        if name in {field.name for field in dataclasses.fields(PathSettings)} or value == getattr(base, name):
            continue
        flag = name.replace("_", "-")
        flags += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return flags


def to_json(config: TrainConfig) -> str:
    """Return the config as JSON text; `resolve(file=...)` of it gives the same config, except for the name of the run."""
    return json.dumps({COMPLETE: True, **dataclasses.asdict(config)}, indent=2, default=str) + "\n"


def is_saved_config(file: Path) -> bool:
    """Return whether `file` is the config of a run, as `to_json` gives it: other programs have a config.json too."""
    try:
        return json.loads(file.read_text()).get(COMPLETE) is True
    except (ValueError, AttributeError, RecursionError):  # no JSON, or no object
        return False


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"--config {file}: cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--config {file}: expected one JSON object, got {type(values).__name__}")
    values = {EARLIER_NAMES.get(name, name): value for name, value in values.items()}
    hints = typing.get_type_hints(TrainConfig)
    unknown = sorted(set(values) - set(hints) - {COMPLETE})
    if unknown:
        raise ConfigError(f"--config {file}: unknown setting(s) {', '.join(unknown)}")
    return {
        name: Path(value)
        if isinstance(value, str) and Path in (hints.get(name), *typing.get_args(hints.get(name)))
        else value
        for name, value in values.items()
    }
