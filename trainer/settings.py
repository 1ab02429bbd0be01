"""The settings of a run, grouped by the code that uses them. Each field carries its help text and its range.

A `TrainConfig` (trainer/config.py) is all groups together, so a function that takes one group accepts the whole config,
and a test can make the group alone: `AugmentationSettings(rotate_degrees=10.0)`.
"""

import dataclasses
import math
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from serving.contract import MODEL_NAME
from trainer.errors import ConfigError
from trainer.precision import Precision

ABOVE_ZERO, FROM_ZERO = "a number above 0", "a number not below 0"
BELOW_ONE, TO_ONE = "0 <= value < 1", "0 <= value <= 1"

ACCEPTS = {
    ABOVE_ZERO: lambda value: 0 < value < math.inf,
    FROM_ZERO: lambda value: 0 <= value < math.inf,
    BELOW_ONE: lambda value: 0 <= value < 1,
    TO_ONE: lambda value: 0 <= value <= 1,
}
"""The check behind each range; NaN passes none of them."""


def setting(default: Any, help_text: str, expected: str = "", *, may_change: bool = False) -> Any:
    """Return a field of a settings group.

    Args:
        default: its value unless a preset, a file or a flag sets another.
        help_text: meaning, unit and special values, as `--help` shows them.
        expected: one of the keys of `ACCEPTS`; empty accepts every value of the field's type.
        may_change: whether a run can be resumed with another value.
    """
    return dataclasses.field(
        default=default, metadata={"help": help_text, "expected": expected, "may_change": may_change}
    )


@dataclass(frozen=True, kw_only=True)
class PathSettings:
    """Where a run reads and writes."""

    preset: str = setting("quickstart", "Name of the preset that the other values started from.", may_change=True)
    artifacts: Path = setting(
        Path("artifacts"),
        "Root of everything that is written: data/, runs/<run>/, tune/<run>/, seeds/<run>.json and "
        "models/digits/<version>/.",
        may_change=True,
    )
    data_dir: Path | None = setting(None, "Folder of the data set; none means <artifacts>/data.", may_change=True)
    run: str = setting(
        "", "Name of the run's folder under <artifacts>/runs/; empty means <preset>-<UTC time>.", may_change=True
    )

    models_dir: Path | None = setting(
        None, "Folder that holds one folder per served model; none means <artifacts>/models.", may_change=True
    )
    model_name: str = setting(
        MODEL_NAME, "Name of the served model; its versions are in <models-dir>/<model-name>/.", may_change=True
    )

    @property
    def run_dir(self) -> Path:
        """Folder of this run's outputs."""
        return self.artifacts / "runs" / self.run

    @property
    def model_dir(self) -> Path:
        """Folder of the model's versions, which the server polls."""
        return (self.models_dir or self.artifacts / "models") / self.model_name

    @property
    def data_path(self) -> Path:
        """Folder of the data set."""
        return self.data_dir or self.artifacts / "data"


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which examples a run learns from."""

    dataset: Literal["mnist", "idx", "folder", "optdigits"] = setting(
        "optdigits",
        "mnist: through tensorflow-datasets; idx: four files in MNIST's format; folder: pictures of any size in folders "
        "named 0 to 9, or listed in labels.csv; optdigits: embedded, needs no download.",
    )
    validation_size: int = setting(
        180,
        "Examples of the training data held back for validation: the same share of each digit, drawn with a fixed seed; "
        "never trained on.",
        ABOVE_ZERO,
    )
    pen_weight: float = setting(
        0.0,
        "Share of the training examples that a pen model draws, before extra_data is mixed in: styles that the data set "
        "lacks, such as a barred 7 or an open 4. See trainer/data/pen.py.",
        BELOW_ONE,
    )
    extra_data: Path | None = setting(
        None,
        "Folder of pictures, in folders named 0 to 9 or listed in labels.csv, that are mixed into the training examples; "
        "a fifth of them is held out and scored after training.",
        may_change=True,
    )
    extra_weight: float = setting(0.2, "Share of each epoch's examples that comes from extra_data.", BELOW_ONE)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which network a run trains."""

    model: Literal["mlp", "lenet", "cnn", "resnet"] = setting("cnn", "Network: see trainer/training/model.py.")
    width: float = setting(1.0, "Factor on the number of units of every hidden layer.", ABOVE_ZERO)
    init_from: str = setting(
        "",
        "Start from the weights of a run (its name or folder) or of a published version (its number or folder), with a "
        "new optimizer; empty = random weights.",
    )
    dropout: float = setting(
        0.0,
        "Share of activations dropped before the output layer, in mlp after each hidden layer, 0 <= dropout < 1.",
        BELOW_ONE,
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How the weights follow the gradients, and for how long."""

    epochs: float = setting(20.0, "Passes over the training examples; fractions are allowed.", ABOVE_ZERO)
    global_batch_size: int = setting(64, "Examples per step, over all replicas together.", ABOVE_ZERO)
    optimizer: Literal["adam", "adamw"] = setting(
        "adam", "adamw adds decoupled weight decay to kernels, and none to biases and batch norm's scales."
    )
    learning_rate: float = setting(2e-3, "The highest rate, reached at the end of the warm-up.", ABOVE_ZERO)
    beta_1: float = setting(0.9, "Decay of Adam's mean of gradients.", BELOW_ONE)
    beta_2: float = setting(0.999, "Decay of Adam's mean of squared gradients.", BELOW_ONE)
    weight_decay: float = setting(0.0, "AdamW's decoupled weight decay per unit of learning rate.", FROM_ZERO)
    schedule: Literal["constant", "linear", "cosine"] = setting(
        "cosine", "How the learning rate falls after the warm-up."
    )
    warmup_fraction: float = setting(0.1, "Share of all steps in which the learning rate rises from near 0.", BELOW_ONE)
    final_learning_rate_fraction: float = setting(
        0.0, "The last step's learning rate as a share of the highest.", TO_ONE
    )
    label_smoothing: float = setting(0.0, "Share of each target spread evenly over the ten digits.", BELOW_ONE)
    ema_decay: float = setting(
        0.0,
        "Decay per step of the moving average of all weights, which is evaluated and exported; 0 = no average.",
        BELOW_ONE,
    )
    evaluate_every: int = setting(
        0, "Steps between evaluations on the validation split; 0 = one after each epoch.", FROM_ZERO
    )
    early_stopping_patience: int = setting(
        0,
        "Stop after this many evaluations without a better validation loss, and keep the weights of the best "
        "evaluation; 0 = train to the end and keep the last weights.",
        FROM_ZERO,
    )


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """How training images are changed; evaluation and serving never change them."""

    rotate_degrees: float = setting(0.0, "Rotation, uniform within +- this many degrees.", FROM_ZERO)
    zoom: float = setting(0.0, "Scale per axis, uniform within 1 +- this.", BELOW_ONE)
    shift_pixels: float = setting(0.0, "Shift per axis, uniform within +- this many pixels.", FROM_ZERO)
    shear_degrees: float = setting(0.0, "Slant, uniform within +- this many degrees.", FROM_ZERO)
    elastic_pixels: float = setting(
        0.0, "Smooth random deformation: the standard deviation of how far a pixel moves, along each axis.", FROM_ZERO
    )
    stroke_width_jitter_pixels: float = setting(
        0.0,
        "Thicker or thinner strokes: their edges move by up to this many pixels, at most 1. Digits drawn at a low "
        "resolution keep their strokes.",
        TO_ONE,
    )
    stroke_gap_fraction: float = setting(
        0.0, "Share of the digits that get a gap 3 pixels wide at a random place near the middle.", TO_ONE
    )
    serif_ones_fraction: float = setting(
        0.0, "Share of the ones that get an upstroke at the top, and half of those a foot too.", TO_ONE
    )
    low_resolution_fraction: float = setting(
        0.0, "Share of the digits drawn at a low resolution, as if read from a picture of few pixels.", TO_ONE
    )
    unaugmented_epochs: float = setting(0.0, "This many epochs at the end run without augmentation.", FROM_ZERO)


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """On what, and with which arithmetic, a run computes."""

    seed: int = setting(0, "Decides initial weights, order of examples, augmentation and dropout.", FROM_ZERO)
    deterministic: bool = setting(False, "Same seed, same machine and software, same bits; somewhat slower.")
    precision: Precision = setting(
        "float32",
        "Arithmetic while training; the exported model is always float32. auto is mixed_bfloat16 on machines that compute "
        "with it, else float32; a resumed run keeps its choice. float64 is slow and serves to compare runs: its rounding "
        "errors are negligible beside those of float32.",
    )
    strategy: Literal["auto", "default", "mirrored"] = setting(
        "auto",
        "auto: MirroredStrategy where there is more than one replica, else none. Several workers always use "
        "MultiWorkerMirroredStrategy.",
        may_change=True,
    )
    replicas: int = setting(
        0,
        "Devices to train on; 0 = all GPUs, or one CPU. N on a machine without GPUs makes N logical CPU devices.",
        FROM_ZERO,
        may_change=True,
    )
    jit_compile: bool = setting(False, "Compile the step with XLA; not possible together with MirroredStrategy.")
    steps_per_call: int = setting(16, "Steps inside one TensorFlow call, without Python between them.", ABOVE_ZERO)
    profile: str = setting(
        "",
        "Steps START:STOP to profile: the first step is 0, and STOP is excluded. The profile is in the run's TensorBoard "
        "(pip install xprof). Empty = none.",
        may_change=True,
    )
    histograms: bool = setting(
        False,
        "Write histograms of all weights to the run's TensorBoard, at each evaluation on the validation split.",
        may_change=True,
    )
    peer_timeout_seconds: float = setting(
        600.0,
        "How long several workers wait for each other: at the start, and in each collective operation.",
        ABOVE_ZERO,
        may_change=True,
    )

    @property
    def profiled_steps(self) -> range:
        """The steps to profile, counted from 0; an empty range if none."""
        start, _, stop = (self.profile or "0:0").partition(":")
        return range(int(start), int(stop))


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """How often a run saves its state."""

    checkpoint_seconds: float = setting(
        15.0,
        "Time between checkpoints; a run that was stopped or killed resumes from the last one. 0 = none by time.",
        FROM_ZERO,
        may_change=True,
    )
    checkpoint_steps: int = setting(
        0, "Steps between checkpoints, rounded up to whole calls; 0 = none by steps.", FROM_ZERO, may_change=True
    )
    checkpoints_kept: int = setting(3, "How many of the newest checkpoints are kept.", ABOVE_ZERO, may_change=True)


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """What a trained model must reach to be published."""

    publish: bool = setting(True, "Publish the trained model if it passes the gate.", may_change=True)
    min_accuracy: float = setting(0.975, "Gate: the least test accuracy of a published model.", TO_ONE, may_change=True)
    tolerance: float = setting(
        0.005,
        "Gate: how far the test accuracy may be below that of the served version and of the best live one.",
        FROM_ZERO,
        may_change=True,
    )
    significance: float = setting(
        0.01,
        "Gate: level of the exact McNemar test, which refuses a model that is worse than the served version or the best "
        "live one on the same test digits; 0 = no test.",
        BELOW_ONE,
        may_change=True,
    )
    allow_other_data: bool = setting(
        False,
        "Gate: publish also if the served version was evaluated on another test split; the two are not compared then.",
        may_change=True,
    )
    keep_versions: int = setting(
        0,
        "After publishing, remove all live versions but the newest N, at least 2; 0 = keep all.",
        FROM_ZERO,
        may_change=True,
    )


GROUPS = {
    "paths": PathSettings,
    "data": DataSettings,
    "model": ModelSettings,
    "optimizer": OptimizerSettings,
    "augmentation": AugmentationSettings,
    "runtime": RuntimeSettings,
    "checkpoints": CheckpointSettings,
    "gate": GateSettings,
}
"""The groups under the headings that `--help` gives them, in its order."""


def check_fields(settings: Any) -> None:
    """Check the type and the range of every field; whole numbers become floats where a float is due.

    Raises:
        ConfigError: naming the field, its value and what was expected.
    """
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        hint, value = hints[field.name], getattr(settings, field.name)
        if typing.get_origin(hint) is Literal:
            if value not in typing.get_args(hint):
                raise ConfigError(f"{field.name} is {value!r}; expected one of {', '.join(typing.get_args(hint))}")
            continue
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if float in kinds and type(value) is int and abs(value) < 1e300:
            value = float(value)
            object.__setattr__(settings, field.name, value)
        if (type(value) is bool and bool not in kinds) or not isinstance(value, kinds):
            raise ConfigError(f"{field.name} is {value!r}; expected {getattr(hint, '__name__', hint)}")
        if isinstance(value, str | Path):
            _refuse_odd_characters(field.name, f"{value}")
        if isinstance(value, Path):
            refuse_url(f"{value}")
        expected = field.metadata["expected"]
        if expected and not ACCEPTS[expected](value):
            raise ConfigError(f"{field.name} is {value!r}; expected {expected}")


def _refuse_odd_characters(name: str, text: str) -> None:
    """Refuse what no path can hold, or what TensorFlow, whose paths are UTF-8, cannot open.

    Raises:
        ConfigError: naming the setting.
    """
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{name} is {text!r}; expected text in UTF-8, without a null character")


def refuse_url(path: str) -> None:
    """Refuse `gs://bucket` and the like: Python would take it for a local folder named `gs:`.

    Raises:
        ConfigError: with what to do instead.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", path):
        raise ConfigError(
            f"{path}: a URL is not a path; mount the bucket as a folder (k8s/README.md says how) and give that folder"
        )
