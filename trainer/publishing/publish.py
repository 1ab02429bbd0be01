"""The handoff to serving: gate, export, verification in a fresh process, one rename.

Every step fails closed: a version appears only after all steps before it have succeeded.
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
from trainer.publishing.verify_export import Verify, verify_in_fresh_process
from trainer.publishing.versions import (
    live_versions,
    next_version,
    promote,
    publisher_lock,
    staging_folder,
    version_folder,
    version_folders,
)

CHECKED_EXAMPLES = 256
"""Test digits on which the exported files must predict what the trained model predicts."""


class GateError(RunError):
    """The model is not good enough to be published."""

    exit_code = ExitCode.GATE


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The requirements that a model must meet to be published."""

    min_accuracy: float
    """Least accuracy on the test split."""
    tolerance: float
    """How far the accuracy may lie below that of the served version, on the same test split."""


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
    verify: Verify = verify_in_fresh_process,
) -> Published:
    """Publish a trained model as the next version under `model_dir`, if it passes the gate.

    Args:
        model: the plain model to export.
        evaluation: its score on `test`.
        test: the test split; the served version is scored on it too.
        model_dir: the folder that TensorFlow Serving polls for this model.
        gate: the requirements.
        now: the time that numbers the version.
        metadata: JSON-ready facts, saved inside the version.
        verify: compares the exported files with the model; tests pass one that starts no process.

    Raises:
        GateError: the accuracy is too low, or the served version cannot be scored. Nothing was published.
        ArtifactError: the exported files do not predict what the model predicts. Nothing was published.
    """
    _refuse_below_threshold(evaluation.accuracy, gate.min_accuracy)
    with publisher_lock(model_dir):
        # Scored while the lock is held, so that no other version is published in between.
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
            checked = verify(staging, test.images[:CHECKED_EXAMPLES], evaluation.probabilities[:CHECKED_EXAMPLES])
            target = promote(staging, version)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Published(version=version, folder=target, served_before=served[0] if served else None, check=checked)


def find_published(model_dir: Path, metadata: dict[str, Any]) -> Path | None:
    """The folder of the version, live or retired, whose metadata has these values.

    A run that was killed after it had published, and is started again, finds its version this way.
    """
    with publisher_lock(model_dir):
        for folder in version_folders(model_dir):
            saved = read_metadata(folder)
            if all(saved.get(name) == value for name, value in metadata.items()):
                return folder
    return None


def served_accuracy(folder: Path, test: Split, batch_size: int = 500) -> float:
    """Test accuracy of a published version, from its own files.

    Raises:
        GateError: it cannot be loaded or scored, so the gate cannot compare with it.
    """
    import tensorflow as tf

    try:
        predict = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
        batches = (test.images[start : start + batch_size] for start in range(0, len(test), batch_size))
        probabilities = np.concatenate(
            [predict(**{IMAGES: tf.constant(batch)})[PROBABILITIES].numpy() for batch in batches]
        )
        if probabilities.shape != (len(test), CLASSES) or not np.isfinite(probabilities).all():
            raise ValueError(f"its probabilities are {list(probabilities.shape)}, or not finite")
    except Exception as error:
        # Without a score to compare with, the gate refuses whatever the failure was.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise GateError(
            f"the served version {folder} could not be scored ({reason}), so nothing is published beside it; "
            "retire it with `python -m trainer rollback`"
        ) from error
    return float((probabilities.argmax(axis=1) == test.labels).mean())


def _refuse_below_threshold(accuracy: float, threshold: float) -> None:
    # Written as "not >=" so that NaN is refused too.
    if not accuracy >= threshold:
        raise GateError(f"test accuracy is {accuracy:.4f}, below the gate's min_accuracy {threshold:.4f}")


def _refuse_worse_than_served(accuracy: float, served: float, version: int, tolerance: float) -> None:
    if not accuracy >= served - tolerance:
        raise GateError(
            f"test accuracy is {accuracy:.4f}; version {version}, now served, has {served:.4f} on the same test split "
            f"and the gate's tolerance is {tolerance:.4f}"
        )
