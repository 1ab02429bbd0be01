"""Scores of a model, and their intervals."""

import json

import numpy as np
import pytest
from sklearn import metrics

from trainer.evaluation.metrics import (
    TEMPERATURE_RANGE,
    calibration,
    cross_entropy,
    fit_temperature,
    score,
    wilson_interval,
)


@pytest.fixture
def predictions() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 999).astype(np.uint8)
    logits = generator.normal(size=(999, 10)) + 2.5 * np.eye(10)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def test_cross_entropy_is_exact_for_large_logits(predictions) -> None:
    probabilities, labels = predictions
    logits = np.log(probabilities)
    assert cross_entropy(logits + 300.0, labels) == pytest.approx(metrics.log_loss(labels, probabilities))


def test_confusion_counts_labels_in_rows_and_predictions_in_columns() -> None:
    labels = np.array([1, 1, 7], np.uint8)
    ours = score(np.eye(10, dtype=np.float32)[[1, 7, 7]], labels, loss=0.0)
    assert ours.confusion.shape == (10, 10)
    assert (ours.confusion[1, 1], ours.confusion[1, 7], ours.confusion[7, 7]) == (1, 1, 1)
    assert ours.confusion.sum() == 3
    assert (ours.precision[7], ours.recall[1]) == (0.5, 0.5)


def test_the_worst_mistakes_come_most_confident_first(predictions) -> None:
    probabilities, labels = predictions
    ours = score(probabilities, labels, loss=0.0)
    assert (ours.digits[ours.worst] != labels[ours.worst]).all()
    assert (np.diff(ours.confidence[ours.worst]) <= 0).all()
    assert ours.confidence[ours.worst[0]] == ours.confidence[ours.digits != labels].max()


def test_the_interval_is_wilsons() -> None:
    # From R: prop.test(81, 263, correct = FALSE), an example of Newcombe, Statistics in Medicine 17 (1998).
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    low, high = wilson_interval(360, 360)
    assert high == 1.0
    assert 0.98 < low < 0.995


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    confidence = np.repeat([0.95, 0.65], [100, 50])
    correct = np.concatenate([np.arange(100) < 80, np.arange(50) < 35])
    table, error = calibration(confidence, correct)
    assert error == pytest.approx((100 * 0.15 + 50 * 0.05) / 150)
    assert np.nansum(table[:, 2]) == pytest.approx(1.0)


def test_a_digit_that_is_never_predicted_has_no_precision_and_the_summary_is_valid_json() -> None:
    labels = np.arange(10, dtype=np.uint8)
    probabilities = np.full((10, 10), 0.05)
    probabilities[:, 3] = 0.55
    summary = score(probabilities, labels, loss=1.0).summary()
    assert summary["precision"][4] is None
    assert json.loads(json.dumps(summary, allow_nan=False))["accuracy"] == 0.1


def draw_labels(temperature: float, examples: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the softmax of the logits divided by `temperature`."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 4, (examples, 10)).astype(np.float32)
    noise = random.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(axis=1).astype(np.uint8)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_fit_temperature_recovers_the_temperature_of_the_labels(temperature: float) -> None:
    logits, labels = draw_labels(temperature)
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert cross_entropy(logits / fitted, labels) <= cross_entropy(logits, labels)


def test_without_mistakes_the_temperature_stays_at_its_bound() -> None:
    logits = np.eye(10, dtype=np.float32)
    assert fit_temperature(logits, np.arange(10)) == pytest.approx(TEMPERATURE_RANGE[0], rel=0.01)
