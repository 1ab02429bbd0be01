"""A model and a split of labelled images -> an Evaluation: every number and example that the report shows.

Every metric is computed from the predictions of single examples: metrics that are averaged over batches give a smaller
last batch too much weight.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from serving.contract import CLASSES
from trainer.data.split import Split

if TYPE_CHECKING:
    from trainer.evaluation.predict import Predict

TEMPERATURE_RANGE = 0.25, 4.0
"""Bounds of the fitted temperature. Without a mistake in the validation split the best temperature would be 0."""

RELIABILITY_BINS = 15
"""As in Guo et al. (ICML 2017), so that calibration errors can be compared with published ones."""

WORST_MISTAKES = 24
"""How many mistakes the report shows."""


@dataclass(frozen=True)
class Evaluation:
    """How a model scores on a split of N examples."""

    probabilities: np.ndarray
    """float32 [N, 10]"""
    labels: np.ndarray
    """uint8 [N]"""
    loss: float
    """Mean cross-entropy in nats."""
    accuracy: float
    accuracy_interval: tuple[float, float]
    """95 % interval of the accuracy (Wilson)."""
    confusion: np.ndarray
    """int64 [10, 10]: number of examples of digit `row` that were predicted as digit `column`."""
    precision: np.ndarray
    """float64 [10]; NaN for a digit that was never predicted."""
    recall: np.ndarray
    """float64 [10]"""
    f1: np.ndarray
    """float64 [10]"""
    calibration_error: float
    """Expected calibration error over `reliability`."""
    reliability: np.ndarray
    """float64 [15, 3]: mean confidence, accuracy and share of the examples of each bin of confidence; NaN where empty."""
    worst: np.ndarray
    """int64 [<= 24]: positions of the mistakes, the most confident first."""
    temperature: float = 1.0
    """The logits were divided by this; see `fit_temperature`."""

    @property
    def digits(self) -> np.ndarray:
        """int64 [N]: the predicted digits."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """float32 [N]: the probability of each predicted digit."""
        return self.probabilities.max(axis=1)

    def save(self, path: Path) -> None:
        """Write the labels and the probabilities to an .npz file."""
        np.savez_compressed(path, probabilities=self.probabilities.astype(np.float32), labels=self.labels)

    @property
    def losses(self) -> np.ndarray:
        """float32 [N]: the cross-entropy of each example in nats. A probability of 0 counts as 1e-38."""
        of_labels = self.probabilities[np.arange(len(self.labels)), self.labels]
        return -np.log(np.maximum(of_labels, np.float32(1e-38)))

    def summary(self) -> dict[str, object]:
        """Return the numbers without the examples, as plain values for JSON."""
        return {
            "examples": len(self.labels),
            "accuracy": self.accuracy,
            "accuracy_interval_95": list(self.accuracy_interval),
            "loss": self.loss,
            "mistakes": int((self.digits != self.labels).sum()),
            "calibration_error": self.calibration_error,
            "temperature": self.temperature,
            "precision": _without_nan(self.precision),
            "recall": _without_nan(self.recall),
            "f1": _without_nan(self.f1),
            "confusion": self.confusion.tolist(),
        }


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy in nats of logits [N, 10] against labels [N], computed in float64."""
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature within `TEMPERATURE_RANGE` that minimises the cross-entropy of logits [N, 10] / temperature.

    One temperature divides all logits, so that predictions of 90 % confidence are right nine times in ten. It changes
    no predicted digit (C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
    """
    low, high = TEMPERATURE_RANGE
    # The cross-entropy is convex in the inverse of the temperature, so the bounded search finds its minimum.
    found = minimize_scalar(
        lambda inverse: cross_entropy(logits * inverse, labels),
        bounds=(1 / high, 1 / low),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(1 / found.x)


def evaluate(predict: "Predict", split: Split, temperature: float = 1.0) -> Evaluation:
    """Score every example of the split once; `temperature` divides the logits."""
    logits = predict(split.images) / np.float32(temperature)
    return score(softmax(logits, axis=1), split.labels, cross_entropy(logits, split.labels), temperature)


def score(probabilities: np.ndarray, labels: np.ndarray, loss: float, temperature: float = 1.0) -> Evaluation:
    """Return the Evaluation of given predictions: probabilities float32 [N, 10] for labels uint8 [N]."""
    digits, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    correct = digits == labels
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, digits, labels=range(CLASSES), zero_division=np.nan
    )
    reliability, calibration_error = calibration(confidence, correct)
    mistakes = np.flatnonzero(~correct)
    return Evaluation(
        probabilities=probabilities,
        labels=labels,
        loss=loss,
        accuracy=float(correct.mean()),
        accuracy_interval=wilson_interval(int(correct.sum()), len(correct)),
        confusion=confusion_matrix(labels, digits, labels=range(CLASSES)),
        precision=precision,
        recall=recall,
        f1=f1,
        calibration_error=calibration_error,
        reliability=reliability,
        worst=mistakes[np.argsort(-confidence[mistakes], kind="stable")][:WORST_MISTAKES],
        temperature=temperature,
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (E. B. Wilson, JASA 22, 1927): valid near 1, unlike the normal one."""
    interval = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(newly_correct: int, newly_wrong: int, examples: int) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same examples, and its 95 % interval.

    The adjusted Wald interval of D. G. Bonett and R. M. Price, J. Educ. Behav. Stat. 37 (2012): valid for few changes too.
    """
    gained, lost = (newly_correct + 1) / (examples + 2), (newly_wrong + 1) / (examples + 2)
    middle, error = gained - lost, math.sqrt((gained + lost - (gained - lost) ** 2) / (examples + 2))
    return (newly_correct - newly_wrong) / examples, middle - 1.96 * error, middle + 1.96 * error


def mcnemar(newly_wrong: int, newly_correct: int, *, alternative: str = "two-sided") -> float:
    """Return the p-value of the exact McNemar test: how often two equally good models differ so much on the same examples.

    Args:
        newly_wrong: examples that the first model gets right and the second gets wrong.
        newly_correct: the reverse.
        alternative: "two-sided", or "greater" to count only differences to the second model's disadvantage.
    """
    changes = newly_wrong + newly_correct
    return float(binomtest(newly_wrong, changes, alternative=alternative).pvalue) if changes else 1.0


def calibration(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, float]:
    """Return reliability [bins, 3] and expected calibration error over bins of equal width (Guo et al., ICML 2017)."""
    bin_of = np.minimum((confidence * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    table = np.full((RELIABILITY_BINS, 3), np.nan)
    for number in np.unique(bin_of):
        inside = bin_of == number
        table[number] = confidence[inside].mean(), correct[inside].mean(), inside.mean()
    return table, float(np.nansum(table[:, 2] * np.abs(table[:, 0] - table[:, 1])))


def _without_nan(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
