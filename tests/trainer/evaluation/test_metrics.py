import json

import numpy as np
import pytest
from sklearn import metrics

from trainer.evaluation.metrics import calibration, cross_entropy, percent, score, wilson_interval


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 999).astype(np.uint8)
    logits = generator.normal(size=(999, 10)) + 2.5 * np.eye(10)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def test_scores_are_those_of_scikit_learn(answers) -> None:
    probabilities, labels = answers
    ours = score(probabilities, labels, loss=0.0)
    digits = probabilities.argmax(axis=1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, digits)
    assert ours.accuracy == pytest.approx(metrics.accuracy_score(labels, digits))
    assert np.array_equal(ours.confusion, metrics.confusion_matrix(labels, digits))
    np.testing.assert_allclose((ours.precision, ours.recall, ours.f1), (precision, recall, f1))
    logits = np.log(probabilities)
    assert cross_entropy(logits + 300.0, labels) == pytest.approx(metrics.log_loss(labels, probabilities))


def test_the_worst_mistakes_come_most_confident_first(answers) -> None:
    probabilities, labels = answers
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
    right = np.concatenate([np.arange(100) < 80, np.arange(50) < 35])
    table, error = calibration(confidence, right)
    assert error == pytest.approx((100 * 0.15 + 50 * 0.05) / 150)
    assert np.nansum(table[:, 2]) == pytest.approx(1.0)


def test_a_digit_that_is_never_answered_has_no_precision_and_still_makes_json() -> None:
    labels = np.arange(10, dtype=np.uint8)
    probabilities = np.full((10, 10), 0.05)
    probabilities[:, 3] = 0.55
    summary = score(probabilities, labels, loss=1.0).summary()
    assert summary["precision"][4] is None
    assert json.loads(json.dumps(summary, allow_nan=False))["accuracy"] == 0.1


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.98765, 2, "98.77 %"),
        (0.9996, 1, ">99.9 %"),
        (0.99999, 2, ">99.99 %"),
        (1.0, 2, "100.00 %"),
        (0.0, 2, "0.00 %"),
        (float("nan"), 2, "-"),
    ],
)
def test_percentages_have_one_style_and_never_round_up_to_certainty(share: float, digits: int, text: str) -> None:
    assert percent(share, digits) == text
