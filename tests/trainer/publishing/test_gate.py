"""The gate: what it compares a candidate with, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from serving.contract import CONFIDENCE, DIGIT, IMAGES, PROBABILITIES, SIGNATURE
from trainer.config import TrainConfig
from trainer.data.split import Split
from trainer.errors import ExitCode
from trainer.evaluation.metrics import Evaluation, score
from trainer.evaluation.report import write_report
from trainer.evaluation.story import Story
from trainer.publishing.gate import Gate, GateError, judge

GATE = Gate(min_accuracy=0.5, tolerance=0.02)


@pytest.fixture(scope="module")
def test_split() -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(1, 256, (400, 28, 28)).astype(np.uint8)
    return Split(images, np.resize(np.arange(10, dtype=np.uint8), 400))


def predict(split: Split, wrong: range | list[int]) -> np.ndarray:
    """Probabilities of a model that is wrong at the given positions."""
    digits = split.labels.copy()
    digits[list(wrong)] = (digits[list(wrong)] + 1) % 10
    return np.float32(0.01) + np.float32(0.9) * np.eye(10, dtype=np.float32)[digits]


def candidate(split: Split, wrong: range | list[int]) -> Evaluation:
    return score(predict(split, wrong), split.labels, loss=0.1)


def write_version(model_dir: Path, version: int, split: Split, wrong: range | list[int], **metadata: object) -> Path:
    """A published version that predicts the test split as `predict` does, whatever images it is given."""
    module, folder = tf.Module(), model_dir / str(version)
    probabilities = tf.constant(predict(split, wrong))

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, name=IMAGES)])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = probabilities[: tf.shape(images)[0]]
        return {PROBABILITIES: rows, DIGIT: tf.argmax(rows, 1), CONFIDENCE: tf.reduce_max(rows, 1)}

    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: serve})
    facts = {
        "test_fingerprint": split.fingerprint,
        "evaluation": {"accuracy": candidate(split, wrong).accuracy},
        **metadata,
    }
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "digits.json").write_text(json.dumps(facts))
    return folder


def test_the_first_version_needs_no_comparison(tmp_path: Path, test_split: Split) -> None:
    verdict = judge(candidate(test_split, range(4)), test_split, tmp_path / "digits", GATE)
    assert (verdict.comparisons, verdict.limit, verdict.accuracy) == ((), 0.5, 0.99)


def test_a_served_version_that_was_evaluated_on_other_data_is_replaced_only_on_request(
    tmp_path: Path, test_split: Split
) -> None:
    other = Split(test_split.images[::-1] // 2 + 1, test_split.labels[::-1].copy())
    write_version(tmp_path, 100, other, range(4))
    better = candidate(test_split, range(0))
    with pytest.raises(GateError, match=r"100 was evaluated on another test split.*--allow-other-data") as refusal:
        judge(better, test_split, tmp_path, GATE)
    assert refusal.value.exit_code == ExitCode.GATE
    allowed = Gate(min_accuracy=0.5, tolerance=0.02, allow_other_data=True)
    assert judge(better, test_split, tmp_path, allowed).comparisons == ()
    write_version(tmp_path, 90, test_split, range(0))
    with pytest.raises(GateError, match=r"the best live version, 90, has 100\.00 % on the same test split"):
        judge(candidate(test_split, range(20)), test_split, tmp_path, allowed)


def test_a_served_version_without_metadata_is_measured(tmp_path: Path, test_split: Split) -> None:
    folder = write_version(tmp_path, 100, test_split, range(4))
    (folder / "assets.extra" / "digits.json").unlink()
    [comparison] = judge(candidate(test_split, range(4)), test_split, tmp_path, GATE).comparisons
    assert (comparison.version, comparison.accuracy, comparison.difference) == (100, 0.99, 0.0)


def test_losses_within_the_tolerance_do_not_add_up_over_versions(tmp_path: Path, test_split: Split) -> None:
    """The best version was forgotten: each publish could lose a tolerance against the one before."""
    write_version(tmp_path, 100, test_split, range(0))
    write_version(tmp_path, 200, test_split, range(6))
    third = candidate(test_split, range(12))
    with pytest.raises(GateError, match=r"accuracy is 97\.00 %; the best live version, 100, has 100\.00 %") as refusal:
        judge(third, test_split, tmp_path, Gate(min_accuracy=0.5, tolerance=0.02, significance=0.0))
    verdict = refusal.value.verdict
    assert verdict
    assert [(one.version, one.role) for one in verdict.comparisons] == [
        (200, "the served version"),
        (100, "the best live version"),
    ]
    assert verdict.limit == pytest.approx(0.98)


def test_a_significantly_worse_model_is_refused_even_within_the_tolerance(tmp_path: Path, test_split: Split) -> None:
    from scipy.stats import binomtest

    write_version(tmp_path, 100, test_split, range(4))
    # Seven more mistakes, on top of the same four, cannot be chance; within other mistakes they can.
    worse, mixed = candidate(test_split, range(11)), candidate(test_split, range(4, 15))
    with pytest.raises(GateError, match=r"7 test digits that the served version, 100, predicts correctly") as refusal:
        judge(worse, test_split, tmp_path, GATE)
    [comparison] = refusal.value.verdict.comparisons  # type: ignore[union-attr]
    assert (comparison.newly_wrong, comparison.newly_correct) == (7, 0)
    assert comparison.p_value == binomtest(7, 7, alternative="greater").pvalue == 0.5**7
    [comparison] = judge(mixed, test_split, tmp_path, GATE).comparisons
    assert (comparison.newly_wrong, comparison.newly_correct) == (11, 4)
    assert comparison.difference == pytest.approx(-7 / 400)
    assert judge(worse, test_split, tmp_path, Gate(min_accuracy=0.5, tolerance=0.02, significance=0.0)).comparisons


def test_the_verdict_lists_the_changed_digits_and_the_report_shows_them(tmp_path: Path, test_split: Split) -> None:
    write_version(tmp_path, 100, test_split, [3, 7])
    ours = candidate(test_split, [7, 12])
    verdict = judge(ours, test_split, tmp_path, GATE)
    data = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert data["limit"] == pytest.approx(398 / 400 - 0.02)
    [comparison] = data["comparisons"]
    assert comparison["changed"] == [
        {"position": 12, "label": 2, "before": 2, "now": 3},
        {"position": 3, "label": 3, "before": 4, "now": 3},
    ]
    story = Story(TrainConfig(run="r"), "Published as version 200.", True, {}, gate=data)
    write_report(tmp_path / "report.html", story, ours, test_split.images, [])
    page = (tmp_path / "report.html").read_text()
    for part in (
        "97.50&nbsp;%",
        "the served version, 100",
        "1 newly correct, 1 newly wrong",
        "was 4, now 3",
        "was 2, <b>now 3",
    ):
        assert part in page


def test_damaged_metadata_of_an_old_version_is_a_warning_and_of_the_served_one_a_refusal(
    tmp_path: Path, test_split: Split, capsys
) -> None:
    damaged = write_version(tmp_path, 100, test_split, range(0)) / "assets.extra" / "digits.json"
    served = write_version(tmp_path, 200, test_split, range(4)) / "assets.extra" / "digits.json"
    damaged.write_text('{"version": 1')
    [comparison] = judge(candidate(test_split, range(4)), test_split, tmp_path, GATE).comparisons
    assert comparison.version == 200
    assert f"{damaged} is damaged" in capsys.readouterr().err
    served.write_text("[]")
    with pytest.raises(GateError, match=r"200 cannot be compared .*is damaged.* rollback"):
        judge(candidate(test_split, range(4)), test_split, tmp_path, GATE)


def test_a_best_version_that_cannot_be_loaded_is_skipped_with_a_warning(
    tmp_path: Path, test_split: Split, capsys
) -> None:
    (write_version(tmp_path, 100, test_split, range(0)) / "saved_model.pb").unlink()
    write_version(tmp_path, 150, test_split, range(2))
    write_version(tmp_path, 200, test_split, range(4))
    verdict = judge(candidate(test_split, range(4)), test_split, tmp_path, GATE)
    assert [comparison.version for comparison in verdict.comparisons] == [200, 150]
    assert "does not compare with" in capsys.readouterr().err
