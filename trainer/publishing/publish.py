"""The handoff to serving: gate, export, verification in a fresh process, one rename.

Every step fails closed: a version appears only after all steps before it have succeeded.
"""

import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from trainer.data.split import Split
from trainer.evaluation.metrics import Evaluation
from trainer.evaluation.predict import predict_logits
from trainer.publishing.export import export_model, read_metadata
from trainer.publishing.gate import TEST_FINGERPRINT, Gate, Verdict, judge, refuse_below_minimum
from trainer.publishing.verify_export import Verify, verify_in_fresh_process
from trainer.publishing.versions import (
    live_versions,
    next_version,
    promote,
    publisher_lock,
    remove_old_versions,
    staging_folder,
    unreadable_parents,
    version_folders,
)
from trainer.runs.console import SILENT, Console, print_to_stderr
from trainer.runs.signals import deferred_stop

CHECKED_EXAMPLES = 256
"""Test digits on which the exported files must predict what the trained model predicts."""


EXTRA_FINGERPRINT = "extra_fingerprint"
"""Key of a version's metadata: `Splits.extra_fingerprint` of what it was trained on."""


@dataclass(frozen=True)
class Published:
    """A version that is live."""

    version: int
    folder: Path
    served_before: int | None
    check: dict[str, Any]
    """The values that the verification measured."""
    verdict: Verdict
    """What the gate compared."""


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
    keep_versions: int = 0,
    console: Console = SILENT,
) -> Published:
    """Publish a trained model as the next version under `model_dir`, if it passes the gate.

    Args:
        model: the plain model to export.
        evaluation: its score on `test`.
        test: the test split; live versions are scored on it too.
        model_dir: the folder that TensorFlow Serving polls for this model; its name is the model's name.
        gate: the requirements.
        now: the time that numbers the version.
        metadata: JSON-ready facts, saved inside the version.
        verify: compares the exported files with the model.
        keep_versions: how many live versions to keep; older ones are removed afterwards. 0 = all.
        console: prints which step is running.

    Raises:
        GateError: the gate refused the model; see `trainer.publishing.gate`. Nothing was published.
        ArtifactError: the exported files do not predict what the model predicts. Nothing was published.
    """
    refuse_below_minimum(evaluation, gate)
    images = test.images[:CHECKED_EXAMPLES]
    with publisher_lock(model_dir):
        # Compared while the lock is held, so that no other version is published in between.
        served = live_versions(model_dir)[-1:]
        with console.phase("Comparing with the served version") if served else nullcontext(), deferred_stop():
            verdict = judge(evaluation, test, model_dir, gate)
        version = next_version(model_dir, now)
        staging = staging_folder(model_dir, version)
        try:
            with console.phase("Exporting"), deferred_stop():
                expected = _predict_on_cpu(model, images, evaluation.temperature)
                export_model(
                    model,
                    staging,
                    images=images,
                    model_name=model_dir.name,
                    temperature=evaluation.temperature,
                    metadata={
                        "version": version,
                        "evaluation": evaluation.summary(),
                        "gate": verdict.to_json(),
                        TEST_FINGERPRINT: test.fingerprint,
                        **metadata,
                    },
                )
            with console.phase("Verifying the exported files in a fresh process"):
                checked = verify(staging, images, expected)
            target = promote(staging, version)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        if keep_versions:
            _remove_old_versions(model_dir, keep_versions)
    if closed := " ".join(map(str, unreadable_parents(target))):
        print_to_stderr(
            f"warning: a server that runs as another user cannot load the version; `chmod o+rx {closed}` lets it"
        )
    return Published(
        version=version,
        folder=target,
        served_before=served[0] if served else None,
        check=checked,
        verdict=verdict,
    )


def find_published(model_dir: Path, metadata: dict[str, Any]) -> Path | None:
    """Return the folder of the version, live or retired, whose metadata has these values.

    A run that was killed after it had published, and is started again, finds its version this way.
    """
    with publisher_lock(model_dir):
        for folder in version_folders(model_dir):
            try:
                saved = read_metadata(folder)
            except (OSError, ValueError) as error:
                print_to_stderr(f"warning: {error}")
                continue
            if all(saved.get(name) == value for name, value in metadata.items()):
                return folder
    return None


def _predict_on_cpu(model: keras.Model, images: np.ndarray, temperature: float) -> np.ndarray:
    """Return the model's probabilities, float32 [N, 10], computed where the verification computes them.

    The kernels of a GPU round differently, by more than the verification accepts.
    """
    with tf.device("CPU:0"):
        logits = predict_logits(model, images).numpy()
    return softmax(logits / np.float32(temperature), axis=1)


def _remove_old_versions(model_dir: Path, keep: int) -> None:
    try:
        remove_old_versions(model_dir, keep)
    except OSError as error:
        # The new version is live, so this must not look like a failure to publish. The next publisher tries again.
        print_to_stderr(f"warning: cannot remove old versions: {error}")
