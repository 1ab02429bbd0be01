"""`python -m trainer learn FOLDER`: trains the served version further, on pictures that users have corrected.

    the served version -> the config of its run, with LEARNING over it -> a run (trainer/run.py) -> scores before and after

The run starts from the version's weights. The corrections are mixed into the version's training data, which limits the
loss of accuracy on it; a fifth of them is held out. The run passes the gate and publishes like any other. If the version
has learned from these very corrections before, nothing is trained.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from percent import percent
from trainer.command_line import command_line
from trainer.config import TrainConfig, resolve
from trainer.errors import ConfigError
from trainer.run import train_run
from trainer.runs.console import Console
from trainer.runs.folder import CONFIG_FILE
from trainer.runs.result import RESULT_FILE, read_result
from trainer.settings import PathSettings
from trainer.training.cluster import find_cluster

if TYPE_CHECKING:
    import numpy as np

    from trainer.data.split import Split

LEARNING: dict[str, Any] = {
    "extra_weight": 0.03,
    "schedule": "linear",
    "warmup_fraction": 0.1,
    "ema_decay": 0.98,
    "label_smoothing": 0.0,
    "unaugmented_epochs": 0.0,
    "early_stopping_patience": 0,
    "precision": "auto",
}
"""What training on corrections changes of the settings that the served version was trained with.

Also the precision: the config names that of the machine that trained, which may have had a GPU. A CPU that only emulates
bfloat16 takes more than ten times as long with it.
"""

PATHS = {field.name for field in fields(PathSettings)}

EXAMPLES = {"mlp": 160_000, "lenet": 160_000, "cnn": 40_000, "resnet": 30_000}
"""Training examples, corrections among them, by network: at most about a minute on two CPU cores."""

LEARNING_RATES = {"mlp": 3e-3, "lenet": 3e-3, "cnn": 1e-3, "resnet": 1e-3}
"""By network: about a third of the presets' rates."""

FEW_CORRECTIONS = 10
"""A model learns little from fewer, and the held-out ones show nothing."""


def learn(
    corrections: Path,
    flags: dict[str, Any],
    file: Path | None,
    now: datetime,
    environment: Mapping[str, str],
    console: Console,
) -> None:
    """Train the newest live version further, print its scores before and after, and publish it if it passes the gate.

    Does nothing if no correction was added, removed or relabelled since that version learned.

    Args:
        corrections: pictures in folders named 0 to 9, or listed in labels.csv.
        flags: settings given on the command line.
        file: the config of the run that trained the version; None finds it in the run's folder.
        now: the time that names the run.
        environment: as in os.environ.
        console: prints progress and results.

    Raises:
        RunError: no version is published, its settings are unknown, the corrections cannot be read, or the run failed.
    """
    if find_cluster(environment):
        raise ConfigError("learn runs on one machine; start it outside of TF_CONFIG and of an Indexed Job")
    with console.phase("Loading TensorFlow"):
        from trainer.data.folder import folder_fingerprint, read_folder
        from trainer.data.load import read_dataset
        from trainer.publishing.gate import predict_version
        from trainer.publishing.publish import EXTRA_FINGERPRINT
    served, config = _served_version(corrections, flags, file, now)
    if _metadata(served).get(EXTRA_FINGERPRINT) == folder_fingerprint(corrections):
        text = f"Version {served.name} has learned from all corrections in {corrections}; nothing is left to do."
        console.note(text, learned=False, version=int(served.name))
        return
    kept, held_out = read_folder(corrections)
    _warn_of_few(kept, held_out)
    train, test = read_dataset(config.dataset, config.data_path)
    if "learning_rate" not in flags:
        config = replace(config, learning_rate=LEARNING_RATES[config.model])
    if "epochs" not in flags:
        own_share = (1 - config.pen_weight) * (1 - config.extra_weight)
        config = replace(
            config, epochs=EXAMPLES[config.model] * own_share / max(1, len(train) - config.validation_size)
        )
    measured = {"test digits": test, **({"held-out corrections": held_out} if len(held_out) else {})}
    with console.phase("Scoring the served version"):
        before = {name: _accuracy(predict_version(served, split.images), split) for name, split in measured.items()}
    try:
        train_run(config, now, environment, console)
    finally:
        # Also for a model that the gate refuses: the two scores say why.
        if (result := read_result(config.run_dir / RESULT_FILE)) and result.evaluation:
            after = (scores["accuracy"] for scores in (result.evaluation, result.extra) if scores)
            for (name, split), accuracy in zip(measured.items(), after, strict=True):
                text = f"{name:<21} {percent(before[name])} before, {percent(accuracy)} after ({len(split):,} digits)"
                console.note(text, measured=name, digits=len(split), before=before[name], after=accuracy)


def _served_version(
    corrections: Path, flags: dict[str, Any], file: Path | None, now: datetime
) -> tuple[Path, TrainConfig]:
    """Return the folder of the newest live version, and the settings to train it further with."""
    from trainer.publishing.versions import live_versions, version_folder

    places = resolve(flags={name: value for name, value in flags.items() if name in PATHS})
    live = live_versions(places.model_dir)
    if not live:
        raise ConfigError(
            f"{places.model_dir}: no version is published; train one first with `{command_line('train')}`"
        )
    served = version_folder(places.model_dir, live[-1])
    if not file:
        run = str(_metadata(served).get("run"))
        file = places.artifacts / "runs" / run / CONFIG_FILE
        if not file.is_file():
            raise ConfigError(
                f"{served}: the settings that it was trained with are not in {file}; give them with --config FILE"
            )
    changes = {
        "artifacts": places.artifacts,
        "models_dir": None,
        "run": f"learn-{now:%Y%m%d-%H%M%S}",
        **LEARNING,
        **flags,
        "init_from": str(served),
        "extra_data": corrections,
    }
    return served, resolve(file=file, flags=changes)


def _metadata(version: Path) -> dict[str, Any]:
    from trainer.publishing.export import read_metadata

    try:
        return read_metadata(version)
    except ValueError as error:
        raise ConfigError(
            f"{error}; restore the file, or retire the version with `{command_line('rollback')}`"
        ) from error


def _warn_of_few(kept: Split, held_out: Split) -> None:
    count, digits = len(kept) + len(held_out), {*kept.labels.tolist(), *held_out.labels.tolist()}
    problems = []
    if count < FEW_CORRECTIONS:
        problems.append(f"there are only {count} corrections; a consistent writer needs about 40")
    if not len(held_out):
        problems.append(
            f"none of the {count} corrections is held out, so what the model learns from them is not measured"
        )
    if len(digits) == 1:
        problems.append(
            f"all corrections are of the digit {digits.pop()}; only the test digits show what it costs others"
        )
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)


def _accuracy(probabilities: np.ndarray, split: Split) -> float:
    return float((probabilities.argmax(axis=1) == split.labels).mean())
