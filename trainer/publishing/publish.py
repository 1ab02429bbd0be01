"""The handoff: gate, export, check in a fresh process, one rename.

Everything here fails closed: a version appears only after every step before has said yes.
"""

import shutil
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

from serving.contract import CLASSES, IMAGES, PROBABILITIES, SIGNATURE
from trainer.data.split import Split
from trainer.errors import ExitCode, RunError
from trainer.evaluation.metrics import Evaluation
from trainer.publishing.export import export_model, read_metadata
from trainer.publishing.verify_export import check_in_fresh_process
from trainer.publishing.versions import (
    live_versions,
    next_version,
    publisher_lock,
    reveal,
    staging_folder,
    version_folder,
    version_folders,
)

CHECKED_EXAMPLES = 256
"""Test digits whose probabilities must be the trainer's."""


class GateError(RunError):
    """The model is not good enough to be served."""

    exit_code = ExitCode.GATE


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a model must reach to be published."""

    min_accuracy: float
    """Least accuracy on the test split."""
    tolerance: float
    """How much less than the version now served is acceptable, on the same test split."""


@dataclass(frozen=True)
class Published:
    """A version that is live."""

    version: int
    folder: Path
    served_before: int | None
    check: dict[str, Any]


def publish(
    model: keras.Model,
    evaluation: Evaluation,
    test: Split,
    *,
    model_dir: Path,
    gate: Gate,
    now: datetime,
    metadata: dict[str, Any],
) -> Published:
    """Publish a trained model as the next version under `model_dir`, if it passes the gate.

    Args:
        model: the plain model to export.
        evaluation: its score on `test`.
        test: the test split, on which the served version is scored too.
        model_dir: the folder that TensorFlow Serving polls for this model.
        gate: what it must reach.
        now: the time that numbers the version.
        metadata: JSON-ready facts kept inside the version.

    Raises:
        GateError: too low, lower than the served version, or the served version cannot be scored. Nothing changed.
        ArtifactError: the exported files do not answer as the model does. Nothing changed.
    """
    _refuse_below_threshold(evaluation.accuracy, gate.min_accuracy)
    with publisher_lock(model_dir):
        # Scored under the lock: a version published in the meantime is the one to compare with.
        served = live_versions(model_dir)[-1:]
        if served:
            folder = version_folder(model_dir, served[0])
            _refuse_worse_than_served(evaluation.accuracy, served_accuracy(folder, test), served[0], gate.tolerance)
        version = next_version(model_dir, now)
        staging = staging_folder(model_dir, version)
        try:
            export_model(
                model,
                staging,
                images=test.images[:CHECKED_EXAMPLES],
                temperature=evaluation.temperature,
                metadata={"version": version, "evaluation": evaluation.summary(), "gate": asdict(gate), **metadata},
            )
            checked = check_in_fresh_process(
                staging, test.images[:CHECKED_EXAMPLES], evaluation.probabilities[:CHECKED_EXAMPLES]
            )
            target = reveal(staging, version)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Published(version=version, folder=target, served_before=served[0] if served else None, check=checked)


def published_before(model_dir: Path, metadata: dict[str, Any]) -> Path | None:
    """The folder of the version whose metadata has these values, retired or not; by it a run that was killed, or that is
    started once more, finds what it has published already."""
    with publisher_lock(model_dir):
        for folder in version_folders(model_dir):
            saved = read_metadata(folder)
            if all(saved.get(name) == value for name, value in metadata.items()):
                return folder
    return None


def served_accuracy(folder: Path, test: Split, batch_size: int = 500) -> float:
    """Test accuracy of a published version, from its own files.

    Raises:
        GateError: it cannot be loaded or does not answer, so nothing can be compared with it.
    """
    import tensorflow as tf

    try:
        answer = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
        batches = (test.images[start : start + batch_size] for start in range(0, len(test), batch_size))
        probabilities = np.concatenate(
            [answer(**{IMAGES: tf.constant(batch)})[PROBABILITIES].numpy() for batch in batches]
        )
        if probabilities.shape != (len(test), CLASSES) or not np.isfinite(probabilities).all():
            raise ValueError(f"its probabilities are {list(probabilities.shape)}, or not finite")
    except Exception as error:
        # Any failure at all means that there is no score to compare with, and a gate without one stays shut.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise GateError(
            f"the served version {folder} could not be scored ({reason}), so nothing is published beside it; "
            "retire it with `python -m trainer rollback`"
        ) from error
    return float((probabilities.argmax(axis=1) == test.labels).mean())


def _refuse_below_threshold(accuracy: float, threshold: float) -> None:
    # Written as "not at least", so that NaN is refused too.
    if not accuracy >= threshold:
        raise GateError(f"test accuracy is {accuracy:.4f}, below the gate's min_accuracy {threshold:.4f}")


def _refuse_worse_than_served(accuracy: float, served: float, version: int, tolerance: float) -> None:
    if not accuracy >= served - tolerance:
        raise GateError(
            f"test accuracy is {accuracy:.4f}; version {version}, now served, has {served:.4f} on the same test split "
            f"and the gate's tolerance is {tolerance:.4f}"
        )
