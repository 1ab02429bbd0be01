"""A model and a split of labelled images -> an Evaluation: every number and example that the report shows.

All is computed from the predictions of each example, once: metrics that are averaged over batches weigh a smaller last
batch wrongly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from serving.contract import CLASSES, IMAGE_SHAPE
from trainer.data.split import Split

Predict = Callable[[np.ndarray], np.ndarray]
"""images uint8 [N, 28, 28] -> logits float32 [N, 10]."""


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a split of N examples."""

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
    """int64 [10, 10]: examples of digit `row` taken for digit `column`."""
    precision: np.ndarray
    """float64 [10]; NaN for a digit that was never answered."""
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
    """What the logits were divided by; see `trainer.evaluation.calibrate`."""

    @property
    def digits(self) -> np.ndarray:
        """int64 [N]: the answers."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """float32 [N]: the probability of each answer."""
        return self.probabilities.max(axis=1)

    def summary(self) -> dict[str, object]:
        """The figures alone, as plain values for JSON."""
        return {
            "examples": len(self.labels),
            "accuracy": self.accuracy,
            "accuracy_interval_95": list(self.accuracy_interval),
            "loss": self.loss,
            "mistakes": int((self.digits != self.labels).sum()),
            "calibration_error": self.calibration_error,
            "temperature": self.temperature,
            "precision": [None if math.isnan(value) else value for value in self.precision.tolist()],
            "recall": self.recall.tolist(),
            "f1": self.f1.tolist(),
            "confusion": self.confusion.tolist(),
        }


def compile_predict(model: keras.Model, batch_size: int = 500) -> Predict:
    """A function from images to logits; it sees the model's later weights too, and compiles once."""

    @tf.function(input_signature=[tf.TensorSpec((None, *IMAGE_SHAPE), tf.uint8)])
    def forward(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    def predict(images: np.ndarray) -> np.ndarray:
        batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
        return np.concatenate([forward(batch).numpy() for batch in batches])

    return predict


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats of logits [N, 10] against labels [N]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def evaluate(predict: Predict, split: Split, temperature: float = 1.0) -> Evaluation:
    """Score every example of the split once; `temperature` divides the logits."""
    logits = predict(split.images) / np.float32(temperature)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return score(probabilities, split.labels, cross_entropy(logits, split.labels), temperature)


def score(probabilities: np.ndarray, labels: np.ndarray, loss: float, temperature: float = 1.0) -> Evaluation:
    """The Evaluation of given answers: probabilities float32 [N, 10] for labels uint8 [N]."""
    digits, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = digits == labels
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(confusion, (labels, digits), 1)
    hits = np.diag(confusion).astype(np.float64)
    with np.errstate(invalid="ignore"):
        precision, recall = hits / confusion.sum(axis=0), hits / confusion.sum(axis=1)
    reliability, calibration_error = calibration(confidence, right)
    mistakes = np.flatnonzero(~right)
    return Evaluation(
        probabilities=probabilities,
        labels=labels,
        loss=loss,
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), len(right)),
        confusion=confusion,
        precision=precision,
        recall=recall,
        f1=2 * hits / (confusion.sum(axis=0) + confusion.sum(axis=1)),
        calibration_error=calibration_error,
        reliability=reliability,
        worst=mistakes[np.argsort(-confidence[mistakes], kind="stable")][:24],
        temperature=temperature,
    )


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion (E. B. Wilson, JASA 22, 1927): sound near 1, where the normal one is not."""
    share, z2 = successes / trials, z * z / trials
    middle = (share + z2 / 2) / (1 + z2)
    half = z / (1 + z2) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> tuple[np.ndarray, float]:
    """Reliability [bins, 3] and expected calibration error over bins of equal width (Guo et al., ICML 2017)."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    table = np.full((bins, 3), np.nan)
    for bin_number in np.unique(which):
        inside = which == bin_number
        table[bin_number] = confidence[inside].mean(), right[inside].mean(), inside.mean()
    return table, float(np.nansum(table[:, 2] * np.abs(table[:, 0] - table[:, 1])))


def percent(share: float, digits: int = 2) -> str:
    """Write a share as text: 0.98765 -> "98.77 %". NaN becomes "-".

    A share below 1 is never rounded up to 100 %: 0.99999 -> ">99.99 %".
    """
    if math.isnan(share):
        return "-"
    text = f"{share:.{digits}%}"
    if share < 1 and text.startswith("100"):
        text = f">{1 - 10.0 ** -(digits + 2):.{digits}%}"
    return text.replace("%", " %")
