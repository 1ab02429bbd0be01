"""The gate: whether a candidate may replace the served version.

A candidate needs a minimum accuracy. It is also compared with the served version and with the best live version, on the
same test digits: with the best one too, so that small losses, each within the tolerance, cannot add up while it is kept.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from percent import percent
from serving.contract import CLASSES, IMAGES, PROBABILITIES, SIGNATURE
from trainer.command_line import command_line
from trainer.data.split import Split
from trainer.errors import ExitCode, RunError
from trainer.evaluation.metrics import Evaluation, mcnemar
from trainer.publishing.export import read_metadata
from trainer.publishing.versions import live_versions, version_folder
from trainer.runs.console import print_to_stderr

TEST_FINGERPRINT = "test_fingerprint"
"""Key of a version's metadata: `Split.fingerprint` of the test split that it was evaluated on."""

LISTED_CHANGES = 100
"""How many changed digits a comparison lists; its counts include all."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The requirements that a model must meet to be published."""

    min_accuracy: float
    """Least accuracy on the test split."""
    tolerance: float
    """How far the accuracy may be below that of a live version, on the same test split."""
    significance: float = 0.01
    """Level of the exact McNemar test that refuses a model which is worse than a live version; 0 = no test."""
    allow_other_data: bool = False
    """Whether the served version may have been evaluated on another test split."""


@dataclass(frozen=True)
class ChangedDigit:
    """A test digit that one of two models predicts correctly and the other does not."""

    position: int
    """In the test split."""
    label: int
    before: int
    """What the live version predicts."""
    now: int
    """What the candidate predicts."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The candidate against one live version, on the same test digits."""

    version: int
    role: str
    """"the served version" or "the best live version"."""
    accuracy: float
    """Of the live version."""
    limit: float
    """Least accuracy that the tolerance allows the candidate."""
    difference: float
    """Accuracy of the candidate minus that of the live version."""
    newly_wrong: int
    newly_correct: int
    p_value: float
    """Of the exact McNemar test: how often two equally good models differ so much to the candidate's disadvantage."""
    changed: tuple[ChangedDigit, ...]
    """The first `LISTED_CHANGES` of them, newly wrong ones first."""

    def reason_to_refuse(self, accuracy: float, gate: Gate) -> str:
        """Return why the candidate must not be published; empty if it may."""
        if not accuracy >= self.limit:
            return (
                f"test accuracy is {_shown(accuracy)}; {self.role}, {self.version}, has {percent(self.accuracy)} on the "
                f"same test split and the gate's tolerance is {percent(gate.tolerance)}"
            )
        if self.p_value < gate.significance:
            return (
                f"{self.newly_wrong} test digits that {self.role}, {self.version}, predicts correctly are wrong now and "
                f"{self.newly_correct} are newly correct: the model is worse (exact McNemar test: p = {self.p_value:.2g}, "
                f"the gate's significance is {gate.significance:g})"
            )
        return ""


@dataclass(frozen=True)
class Verdict:
    """What the gate compared."""

    gate: Gate
    accuracy: float
    comparisons: tuple[Comparison, ...] = ()

    @property
    def limit(self) -> float:
        """Least accuracy that all requirements together allow."""
        return max(self.gate.min_accuracy, *(comparison.limit for comparison in self.comparisons), 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for a version's metadata and for a run's result."""
        return {
            **asdict(self.gate),
            "accuracy": self.accuracy,
            "limit": self.limit,
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
        }


class GateError(RunError):
    """The model is not good enough to be published."""

    exit_code = ExitCode.GATE

    def __init__(self, message: str, verdict: Verdict | None = None):
        super().__init__(message)
        self.verdict = verdict


def refuse_below_minimum(evaluation: Evaluation, gate: Gate) -> None:
    """Refuse a candidate below the minimum accuracy, which needs no comparison.

    Raises:
        GateError: naming both.
    """
    # Written as "not >=" so that NaN is refused too.
    if not evaluation.accuracy >= gate.min_accuracy:
        minimum = percent(gate.min_accuracy)
        message = f"test accuracy is {_shown(evaluation.accuracy)}, below the gate's minimum of {minimum}"
        raise GateError(message, Verdict(gate, evaluation.accuracy))


def refuse_other_data(test: Split, model_dir: Path) -> None:
    """Refuse a test split other than that of the served version, before a model is trained that cannot be compared.

    Raises:
        GateError: as `judge` does without `allow_other_data`.
    """
    _comparable_versions(model_dir, live_versions(model_dir)[-1:], test, allow_other_data=False)


def judge(evaluation: Evaluation, test: Split, model_dir: Path, gate: Gate) -> Verdict:
    """Compare a candidate with the served version and with the best live version.

    Args:
        evaluation: of the candidate, on `test`.
        test: the test split.
        model_dir: the folder of the live versions.
        gate: the requirements.

    Raises:
        GateError: the candidate must not be published, or the served version cannot be compared with it.
    """
    live = live_versions(model_dir)
    comparable = _comparable_versions(model_dir, live, test, allow_other_data=gate.allow_other_data)
    comparisons = []
    if live and live[-1] in comparable:
        comparisons.append(_compare_with_served(evaluation, test, model_dir, live[-1], gate))
    comparisons += _compare_with_best(evaluation, test, model_dir, live, comparable, gate)
    verdict = Verdict(gate, evaluation.accuracy, tuple(comparisons))
    for comparison in comparisons:
        if reason := comparison.reason_to_refuse(evaluation.accuracy, gate):
            raise GateError(reason, verdict)
    return verdict


def predict_version(folder: Path, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Return the probabilities that a published version predicts, float32 [N, 10], computed from its own files.

    Raises:
        Exception: whatever TensorFlow raises for files that it cannot load or run.
        ValueError: the probabilities have another shape, or are not finite.
    """
    predict = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    probabilities = np.concatenate(
        [predict(**{IMAGES: tf.constant(batch)})[PROBABILITIES].numpy() for batch in batches]
    )
    if probabilities.shape != (len(images), CLASSES) or not np.isfinite(probabilities).all():
        raise ValueError(f"its probabilities are {list(probabilities.shape)}, or not finite")
    return probabilities


def _comparable_versions(
    model_dir: Path, live: Sequence[int], test: Split, *, allow_other_data: bool
) -> dict[int, float]:
    """Return the live versions that were evaluated on this test split, and their accuracy.

    A served version without metadata, from another program, counts as comparable: its accuracy is measured.
    """
    comparable, fingerprint = {}, test.fingerprint
    for version in live:
        folder, is_served = version_folder(model_dir, version), version == live[-1]
        try:
            metadata = read_metadata(folder)
            theirs, accuracy = metadata.get(TEST_FINGERPRINT), metadata["evaluation"]["accuracy"] if metadata else 0.0
        except (OSError, ValueError, KeyError, TypeError) as error:
            if is_served:
                raise _not_comparable(folder, error) from error
            print_to_stderr(f"warning: the gate does not compare with {folder}: {error}")
            continue
        if theirs == fingerprint or (is_served and theirs is None):
            comparable[version] = accuracy
        elif is_served and not allow_other_data:
            raise GateError(
                f"the served version {folder} was evaluated on another test split, so the two accuracies cannot be "
                "compared; add --allow-other-data to replace it by a model for other data, or publish to another "
                "--model-name"
            )
    return comparable


def _compare_with_served(evaluation: Evaluation, test: Split, model_dir: Path, version: int, gate: Gate) -> Comparison:
    folder = version_folder(model_dir, version)
    try:
        digits = predict_version(folder, test.images).argmax(axis=1)
    except Exception as error:
        # Without predictions to compare with, the gate refuses, whatever the failure was.
        raise _not_comparable(folder, error) from error
    return _compare(evaluation, digits, version, "the served version", gate)


def _compare_with_best(
    evaluation: Evaluation, test: Split, model_dir: Path, live: Sequence[int], comparable: dict[int, float], gate: Gate
) -> list[Comparison]:
    """Return the comparison with the best version, unless that is the served one; skip what cannot be loaded."""
    for version in sorted(comparable, key=lambda version: (comparable[version], version), reverse=True):
        if version == live[-1]:
            break
        folder = version_folder(model_dir, version)
        try:
            digits = predict_version(folder, test.images).argmax(axis=1)
        except Exception as error:
            print_to_stderr(f"warning: the gate does not compare with {folder}: {error}")
            continue
        return [_compare(evaluation, digits, version, "the best live version", gate)]
    return []


def _compare(evaluation: Evaluation, digits: np.ndarray, version: int, role: str, gate: Gate) -> Comparison:
    labels, now = evaluation.labels, evaluation.digits
    was_correct, is_correct = digits == labels, now == labels
    wrong, correct = np.flatnonzero(was_correct & ~is_correct), np.flatnonzero(~was_correct & is_correct)
    accuracy = float(was_correct.mean())
    return Comparison(
        version=version,
        role=role,
        accuracy=accuracy,
        limit=accuracy - gate.tolerance,
        difference=evaluation.accuracy - accuracy,
        newly_wrong=len(wrong),
        newly_correct=len(correct),
        p_value=mcnemar(len(wrong), len(correct), alternative="greater"),
        changed=tuple(
            ChangedDigit(int(at), int(labels[at]), int(digits[at]), int(now[at]))
            for at in (*wrong, *correct)[:LISTED_CHANGES]
        ),
    )


def _shown(accuracy: float) -> str:
    return "nan" if math.isnan(accuracy) else percent(accuracy)


def _not_comparable(folder: Path, error: Exception) -> GateError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return GateError(
        f"the served version {folder} cannot be compared ({reason}), so nothing is published beside it; "
        f"retire it with `{command_line('rollback')}`"
    )
