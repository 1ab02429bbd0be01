"""`python -m trainer compare`: runs on the same test digits, from run folders that are made up."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.evaluation.test_report import Page, some_rows
from trainer.cli import main
from trainer.config import resolve, to_json
from trainer.data.split import Split
from trainer.errors import ConfigError, ExitCode
from trainer.evaluation.compare import read_runs
from trainer.evaluation.metrics import mcnemar, score
from trainer.runs.result import RunResult
from trainer.runs.tracking import METRICS_FILE


def write_run(artifacts: Path, name: str, test: Split, digits: np.ndarray, **settings: object) -> Path:
    """A run that predicted `digits` for the test split, with 90 % confidence each."""
    folder = artifacts / "runs" / name
    folder.mkdir(parents=True)
    config = resolve("quickstart", flags={"run": name, "artifacts": artifacts, **settings})
    (folder / "config.json").write_text(to_json(config))
    probabilities = np.full((len(test), 10), 0.1 / 9, np.float32)
    probabilities[np.arange(len(test)), digits] = 0.9
    evaluation = score(probabilities, test.labels, loss=0.1)
    evaluation.save(folder / "predictions.npz")
    result = RunResult(evaluation=evaluation.summary(), data={"test": test.digest}, facts={"network": "cnn"})
    (folder / "result.json").write_text(result.to_json())
    rows = (str(row).replace("'", '"') + "\n" for row in some_rows())
    (folder / METRICS_FILE).write_text("".join(rows))
    return folder


@pytest.fixture
def artifacts(tmp_path: Path, splits) -> Path:
    """Run `one` gets the digits 0 to 11 of the test split wrong, run `two` the digit 0 (differently) and 12."""
    one, two = (splits.test.labels.astype(int) for _ in range(2))
    one[:12] = (one[:12] + 1) % 10
    two[0], two[12] = (two[0] + 2) % 10, (two[12] + 1) % 10
    write_run(tmp_path, "one", splits.test, one)
    write_run(tmp_path, "two", splits.test, two, dropout=0.25, seed=7)
    return tmp_path


def test_the_table_has_scores_the_exact_test_and_the_settings_that_differ(artifacts: Path, capsys) -> None:
    assert main(["compare", "one", "two", "--artifacts", str(artifacts)]) == ExitCode.OK
    text = capsys.readouterr().out
    for part in (
        r"A  one\s+96.67 %",
        r"B  two\s+99.44 %",
        r"B minus A: \+2.78 points",
        "11 correct in B only, 1 correct in A only, 1 wrong in both, differently",
        r"Significantly better \(p = 0.0063, exact McNemar test\)",
        r"dropout\s+[\d.]+\s+0.25",
        r"seed\s+0\s+7",
        f"Page: {artifacts}/comparison.html",
    ):
        assert re.search(part, text), (part, text)
    assert "network" not in text, "it is the same"


def test_the_page_is_sound_and_shows_the_digits_that_differ(artifacts: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    folders = [str(artifacts / "runs" / name) for name in ("one", "two")]  # By folder, as well as by name.
    assert main(["compare", *folders, "--page", str(page)]) == ExitCode.OK
    text = page.read_text()
    parsed = Page(text)
    assert len(parsed.sources) == 13
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert parsed.images_without_words == 0
    assert text.count("<svg") == 2
    for part in ("Correct in B only: 11", "Correct in A only: 1", "Wrong in both, differently: 1", "A: one", "B: two"):
        assert part in text
    assert len(set(re.findall(r'\bid="([^"]+)"', text))) == len(re.findall(r'\bid="([^"]+)"', text))


def test_equal_predictions_are_no_difference(tmp_path: Path, splits, capsys) -> None:
    for name in ("one", "two", "three"):
        write_run(tmp_path, name, splits.test, splits.test.labels)
    assert main(["compare", "one", "two", "three", "--artifacts", str(tmp_path)]) == ExitCode.OK
    assert capsys.readouterr().out.count("No test digit tells the two apart.") == 2
    assert "All settings are the same." in (tmp_path / "comparison.html").read_text()


def test_what_cannot_be_compared_is_refused(artifacts: Path, splits) -> None:
    runs = artifacts / "runs"
    other = dataclasses.replace(splits.test, images=255 - splits.test.images)
    write_run(artifacts, "other", other, other.labels)
    (write_run(artifacts, "unfinished", splits.test, splits.test.labels) / "predictions.npz").unlink()
    (write_run(artifacts, "trial", splits.test, splits.test.labels) / "predictions.npz").unlink()
    (runs / "trial" / "model.weights.h5").touch()
    write_run(artifacts, "damaged", splits.test, splits.test.labels)
    (runs / "damaged" / "result.json").write_text("{")
    for name, size in (("empty", 0), ("cut", 300)):
        predictions = write_run(artifacts, name, splits.test, splits.test.labels) / "predictions.npz"
        predictions.write_bytes(predictions.read_bytes()[:size])
    for names, message in (
        (["one", "empty"], r"predictions.npz: is damaged \(.*\); `.* evaluate .*empty` writes it again"),
        (["one", "cut"], r"predictions.npz: is damaged \(.*\); `.* evaluate .*cut` writes it again"),
        (["one", "damaged"], r"result.json is damaged \(.*\); expected a result that the trainer wrote"),
        (["one"], r"compare got 1 run\(s\); expected 2 to 26"),
        (["one", "one"], "the same run twice"),
        (["one", "other"], r"different test digits \(optdigits, SHA-256 \w{12}; optdigits, SHA-256 \w{12}\)"),
        (["one", "unfinished"], "unfinished: has no predictions for the test split: it is not trained to its end"),
        (["one", "trial"], "run `.* evaluate .*trial` first"),
        (["one", "missing"], "missing: no run .* `.* runs` lists the runs"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_runs([runs / name for name in names])
    assert main(["compare", "one", "other", "--artifacts", str(artifacts)]) == ExitCode.USAGE
    assert not (artifacts / "comparison.html").exists()


def test_a_page_without_the_data_says_why_it_has_no_pictures(tmp_path: Path, splits) -> None:
    digits = splits.test.labels.astype(int)
    for name, wrong in (("one", 0), ("two", 1)):
        predicted = digits.copy()
        predicted[wrong] = (predicted[wrong] + 1) % 10
        write_run(tmp_path, name, splits.test, predicted, dataset="idx")
    assert main(["compare", "one", "two", "--artifacts", str(tmp_path)]) == ExitCode.OK
    text = (tmp_path / "comparison.html").read_text()
    assert "The test digits cannot be shown: " in text
    assert "<img" not in text


def test_the_exact_mcnemar_test_agrees_with_the_binomial_distribution() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 10) == pytest.approx(2 / 2**10)
    assert mcnemar(10, 0, alternative="greater") == pytest.approx(1 / 2**10)
