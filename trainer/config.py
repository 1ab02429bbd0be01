"""The settings of a run: one frozen dataclass, and the check that they make sense.

Order of precedence: preset < `--config FILE` < flags. What came out is saved as `config.json` in the run's folder and can
be given back with `--config`.
"""

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.errors import ExitCode, RunError
from trainer.presets import PRESETS


class ConfigError(RunError):
    """A setting that cannot work."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a run computes and where it writes."""

    preset: str = "quickstart"
    """Name of the preset that the other values started from."""

    artifacts: Path = Path("artifacts")
    """Root of everything that is written: data/, runs/<run>/, tune/<run>/ and models/digits/<version>/."""
    data_dir: Path | None = None
    """Folder of the data set; none means <artifacts>/data."""
    run: str = ""
    """Name of the run's folder under <artifacts>/runs/; empty means <preset>-<UTC time>."""

    dataset: Literal["mnist", "idx", "optdigits"] = "optdigits"
    """mnist: through tensorflow-datasets; idx: four files in MNIST's format; optdigits: embedded, needs no download."""
    validation_size: int = 180
    """Examples taken from the end of the training split for validation; never trained on."""

    model: Literal["mlp", "lenet", "cnn"] = "cnn"
    """Network: see trainer/training/model.py."""
    width: float = 1.0
    """Factor on the number of units of every hidden layer."""
    dropout: float = 0.0
    """Share of activations dropped before the last layers, 0 <= dropout < 1."""

    epochs: float = 20.0
    """Passes over the training examples; fractions are allowed."""
    global_batch_size: int = 64
    """Examples per step, over all replicas together."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """adamw adds decoupled weight decay to kernels (not to biases, nor to batch norm's scales)."""
    learning_rate: float = 2e-3
    """The highest rate, reached at the end of the warm-up."""
    beta_1: float = 0.9
    """Decay of Adam's mean of gradients."""
    beta_2: float = 0.999
    """Decay of Adam's mean of squared gradients."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay per unit of learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_fraction: float = 0.1
    """Share of all steps in which the learning rate rises from near 0."""
    final_learning_rate_fraction: float = 0.0
    """The last step's learning rate as a share of the highest."""
    label_smoothing: float = 0.0
    """Share of each target spread evenly over the ten digits."""
    ema_decay: float = 0.0
    """Decay per step of the moving average of all weights that is evaluated and exported; 0 = the weights themselves."""
    early_stopping_patience: int = 0
    """Evaluations without a better validation loss after which training stops; above 0, the weights of the best evaluation
    are kept even if it never comes to that; 0 = never, and the last weights."""

    rotate_degrees: float = 0.0
    """Augmentation: rotation, uniform within +- this many degrees."""
    zoom: float = 0.0
    """Augmentation: scale per axis, uniform within 1 +- this."""
    shift_pixels: float = 0.0
    """Augmentation: shift per axis, uniform within +- this many pixels."""
    shear_degrees: float = 0.0
    """Augmentation: slant, uniform within +- this many degrees."""
    stroke_width_jitter_pixels: float = 0.0
    """Augmentation: thicker or thinner strokes, their edges moved by up to this many pixels, at most 1."""
    stroke_gap_fraction: float = 0.0
    """Augmentation: share of the digits that get a gap 3 pixels wide in or beside their strokes."""
    serif_ones_fraction: float = 0.0
    """Augmentation: share of the ones that get an upstroke at the top, and half of those a foot too."""
    low_resolution_fraction: float = 0.0
    """Augmentation: share of the digits drawn at a low resolution, as if read from a picture of few pixels."""
    unaugmented_epochs: float = 0.0
    """The last epochs, this many, run without augmentation."""

    seed: int = 0
    """Decides initial weights, order of examples, augmentation and dropout."""
    deterministic: bool = False
    """Same seed, same machine, same bits; somewhat slower."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16", "float64"] = "float32"
    """Arithmetic while training; the exported model is float32 always. float64 is slow, and for comparing runs: with it
    their rounding errors stay far too small to grow into different losses."""
    strategy: Literal["auto", "default", "mirrored"] = "auto"
    """auto: MirroredStrategy where there is more than one replica, else none."""
    replicas: int = 0
    """Devices to train on; 0 = all GPUs, or one CPU. N on a machine without GPUs makes N logical CPU devices."""
    jit_compile: bool = False
    """Compile the step with XLA; not possible together with MirroredStrategy."""
    steps_per_call: int = 16
    """Steps inside one TensorFlow call, without Python between them."""

    peer_timeout_seconds: float = 600.0
    """How long several workers wait for each other at the start."""

    checkpoint_seconds: float = 15.0
    """Time between checkpoints, from which a run that was stopped or killed goes on; 0 = none by time."""
    checkpoint_steps: int = 0
    """Steps between checkpoints, rounded up to whole calls; 0 = none by steps."""
    checkpoints_kept: int = 3
    """How many of the newest checkpoints are kept."""

    publish: bool = True
    """Hand the trained model over to serving if it passes the gate."""
    min_accuracy: float = 0.975
    """Gate: the least test accuracy of a published model."""
    tolerance: float = 0.005
    """Gate: how much less test accuracy than the version now served is acceptable."""

    def __post_init__(self) -> None:
        _check_types(self)
        _check_ranges(self)

    @property
    def run_dir(self) -> Path:
        """Folder of this run's outputs."""
        return self.artifacts / "runs" / self.run

    @property
    def models_dir(self) -> Path:
        """Folder that holds one folder per served model."""
        return self.artifacts / "models"

    @property
    def data_path(self) -> Path:
        """Folder of the data set."""
        return self.data_dir or self.artifacts / "data"


MAY_CHANGE = {
    "preset", "artifacts", "data_dir", "run", "strategy", "replicas", "publish", "min_accuracy", "tolerance",
    "checkpoint_seconds", "checkpoint_steps", "checkpoints_kept", "peer_timeout_seconds",
}  # fmt: skip
"""Where a run computes, how often it saves and what its model is held to: free to differ when it goes on."""


def resolve(preset: str | None = None, file: Path | None = None, flags: dict[str, Any] | None = None) -> TrainConfig:
    """The config that preset, file and flags make together; later ones win.

    A file that names its preset keeps it unless `preset` is given.

    Raises:
        ConfigError: unknown preset or field, unreadable file, or a value that cannot work.
    """
    saved = _read(file) if file else {}
    name = preset or saved.get("preset", "quickstart")
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
    # What a run saved is complete: a field that it lacks is younger, and its default changes nothing.
    base = {} if "run" in saved else PRESETS[name]
    saved.pop("run", None)  # the name of that run; this is another
    values = {"preset": name, **base, **saved, **(flags or {})}
    values["preset"] = name
    return TrainConfig(**values)


RENAMED = {
    "pen_pixels": "stroke_width_jitter_pixels",
    "gaps": "stroke_gap_fraction",
    "flags": "serif_ones_fraction",
    "coarse": "low_resolution_fraction",
    "clean_epochs": "unaugmented_epochs",
}
"""Earlier names of fields: config files and checkpoints that use them can still be read."""


def with_current_names(values: dict[str, Any]) -> dict[str, Any]:
    """The same values under the current names of the fields."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def what_it_computes(config: TrainConfig) -> dict[str, Any]:
    """The fields that decide what a run computes: those that must stay the same when it goes on from a checkpoint."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in MAY_CHANGE}


def to_json(config: TrainConfig) -> str:
    """The config as JSON text; `resolve(file=...)` of it gives the same config, but for the name of the run."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n"


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {file}: cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--config {file}: expected one JSON object, got {type(values).__name__}")
    values = with_current_names(values)
    hints = typing.get_type_hints(TrainConfig)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"--config {file}: unknown field(s) {', '.join(unknown)}")
    return {
        name: Path(value) if isinstance(value, str) and Path in (hints[name], *typing.get_args(hints[name])) else value
        for name, value in values.items()
    }


def _check_types(config: TrainConfig) -> None:
    for name, hint in typing.get_type_hints(TrainConfig).items():
        value = getattr(config, name)
        if typing.get_origin(hint) is Literal:
            if value not in typing.get_args(hint):
                raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(typing.get_args(hint))}")
            continue
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if float in kinds and type(value) is int:
            value = float(value)
            object.__setattr__(config, name, value)
        if (type(value) is bool and bool not in kinds) or not isinstance(value, kinds):
            raise ConfigError(f"{name} is {value!r}; expected {getattr(hint, '__name__', hint)}")


def _check_ranges(config: TrainConfig) -> None:
    above_zero = (
        "width", "epochs", "global_batch_size", "learning_rate", "validation_size", "steps_per_call", "checkpoints_kept",
    )  # fmt: skip
    from_zero = (
        "weight_decay", "early_stopping_patience", "rotate_degrees", "shift_pixels", "shear_degrees", "unaugmented_epochs",
        "seed", "replicas", "tolerance", "checkpoint_seconds", "checkpoint_steps", "peer_timeout_seconds",
    )  # fmt: skip
    below_one = ("dropout", "beta_1", "beta_2", "label_smoothing", "ema_decay", "zoom", "warmup_fraction")
    to_one = (
        "stroke_width_jitter_pixels",
        "stroke_gap_fraction",
        "serif_ones_fraction",
        "low_resolution_fraction",
        "min_accuracy",
        "final_learning_rate_fraction",
    )
    for names, accepts, expected in (
        (above_zero, lambda value: 0 < value < math.inf, "a number above 0"),
        (from_zero, lambda value: 0 <= value < math.inf, "a number not below 0"),
        (below_one, lambda value: 0 <= value < 1, "0 <= value < 1"),
        (to_one, lambda value: 0 <= value <= 1, "0 <= value <= 1"),
    ):
        for name in names:
            if not accepts(getattr(config, name)):
                raise ConfigError(f"{name} is {getattr(config, name)!r}; expected {expected}")
    if config.seed >= 2**32:
        raise ConfigError(f"seed is {config.seed}; expected a number below 2**32")
    if "/" in config.run or config.run.startswith("."):
        raise ConfigError(f"run is {config.run!r}; expected a plain folder name, without '/' and not starting with '.'")
    if config.replicas > 1 and config.strategy == "default":
        raise ConfigError(f"strategy is 'default' with {config.replicas} replicas; expected 'mirrored' or 'auto'")
    replicas = max(config.replicas, 1)
    if config.global_batch_size % replicas:
        raise ConfigError(
            f"global_batch_size is {config.global_batch_size} with {replicas} replicas; expected a multiple of {replicas}"
        )
