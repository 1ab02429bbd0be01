"""Compares trained runs on the same test digits: settings, scores, curves, significance, and the digits that differ.

    read_run (config.json, result.json, metrics.jsonl, predictions.npz) -> comparison_text, write_comparison

The runs are named A, B, C and so on; A is the one that the others are compared with.
"""

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from percent import percent
from trainer.command_line import command_line
from trainer.config import TrainConfig, resolve
from trainer.data.load import read_dataset
from trainer.data.split import DataError
from trainer.errors import ConfigError
from trainer.evaluation.figures import CURVES, curves_of_runs
from trainer.evaluation.metrics import Evaluation, mcnemar, paired_difference, score
from trainer.evaluation.page import chart, charts, digits, facts, page, table
from trainer.runs.atomic import write_atomically
from trainer.runs.console import aligned
from trainer.runs.folder import CONFIG_FILE, PREDICTIONS_FILE, WEIGHTS_FILE
from trainer.runs.result import EVALUATE_FILE, PUBLISH_FILE, RESULT_FILE, TRIAL_FILE, read_result
from trainer.runs.tracking import read_rows

SHOWN = 24
"""At most so many digits of each kind are shown as pictures."""

SIGNIFICANCE = 0.05
"""Below this p-value the page calls a difference significant."""

NOT_COMPARED = {"run", "artifacts", "data_dir", "models_dir", "model_name"}
"""Names and places: they change nothing about the model."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class ComparedRun:
    """A run with its predictions for the test split."""

    folder: Path
    config: TrainConfig
    facts: dict[str, str]
    revision: str
    version: int | None
    test_digest: str
    evaluation: Evaluation
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Difference:
    """How a run differs from run A on the same test digits."""

    newly_correct: np.ndarray
    """int64: positions of the digits that A gets wrong and the run gets right."""
    newly_wrong: np.ndarray
    otherwise_wrong: np.ndarray
    """Both are wrong, with different digits."""
    points: tuple[float, float, float]
    """Difference of the accuracies and its 95 % interval."""
    p_value: float
    """Of the exact McNemar test, two-sided."""

    @property
    def sentence(self) -> str:
        """What the test says, for people."""
        if not len(self.newly_correct) + len(self.newly_wrong):
            return "No test digit tells the two apart."
        if self.p_value >= SIGNIFICANCE:
            return f"The difference may be chance (p = {self.p_value:.2g}, exact McNemar test)."
        better = "better" if len(self.newly_correct) > len(self.newly_wrong) else "worse"
        return f"Significantly {better} (p = {self.p_value:.2g}, exact McNemar test)."


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read the runs and check that they can be compared.

    Raises:
        ConfigError: fewer than two runs, the same run twice, a run that is not trained to its end, or runs that were
            evaluated on different test digits.
    """
    if not 2 <= len(folders) <= len(LETTERS):
        raise ConfigError(f"compare got {len(folders)} run(s); expected 2 to {len(LETTERS)}")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("compare got the same run twice; expected different runs")
    runs = [_read_run(folder) for folder in folders]
    first = runs[0]
    for run in runs[1:]:
        if run.test_digest != first.test_digest or not np.array_equal(run.evaluation.labels, first.evaluation.labels):
            raise ConfigError(
                f"{first.folder} and {run.folder} were evaluated on different test digits ({_data_of(first)}; "
                f"{_data_of(run)}), so they cannot be compared"
            )
    return runs


def compare(first: Evaluation, other: Evaluation) -> Difference:
    """Return how `other` differs from `first`, both on the same digits."""
    was, now = first.digits == first.labels, other.digits == other.labels
    correct, wrong = np.flatnonzero(~was & now), np.flatnonzero(was & ~now)
    return Difference(
        newly_correct=correct,
        newly_wrong=wrong,
        otherwise_wrong=np.flatnonzero(~was & ~now & (first.digits != other.digits)),
        points=paired_difference(len(correct), len(wrong), len(first.labels)),
        p_value=mcnemar(len(wrong), len(correct)),
    )


def comparison_text(runs: Sequence[ComparedRun]) -> str:
    """Return the comparison as lines of text: scores, differences, and settings that differ."""
    lines = [
        aligned([["", *SCORES], *([f"{letter}  {run.config.run}", *_scores(run)] for letter, run in _named(runs))])
    ]
    for letter, run in _named(runs)[1:]:
        difference = compare(runs[0].evaluation, run.evaluation)
        lines.append("\n".join(f"{name}: {text}" for name, text in _difference_facts(letter, difference).items()))
    if settings := differing_settings(runs):
        lines.append(
            aligned([["setting", *LETTERS[: len(runs)]], *([name, *values] for name, values in settings.items())])
        )
    return "\n\n".join(lines)


def write_comparison(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Write the comparison as one HTML page."""
    body = "\n".join(
        (
            f"<h1>{escape(' and '.join(run.config.run for run in runs))}</h1>",
            f"<p>Scores on the same {len(runs[0].evaluation.labels):,} test digits of {escape(_data_of(runs[0]))}.</p>",
            table(
                ["run", *SCORES],
                ((f"{letter}: {run.config.run}", *_scores(run)) for letter, run in _named(runs)),
                "Scores",
            ),
            _settings(runs),
            _curves(runs),
            *_differences(runs),
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda partial: partial.write_text(page("Comparison of runs", body)))


def differing_settings(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Return what is not the same in all runs, of settings, network, devices and revision: name -> value of each run."""
    columns = [
        {
            **{name: value for name, value in dataclasses.asdict(run.config).items() if name not in NOT_COMPARED},
            **{name: run.facts.get(name) for name in ("network", "devices")},
            "git revision": run.revision[:12],
        }
        for run in runs
    ]
    return {
        name: ["none" if column[name] in (None, "") else str(column[name]) for column in columns]
        for name in columns[0]
        if len({str(column[name]) for column in columns}) > 1
    }


SCORES = ("accuracy", "95 % interval", "mistakes", "loss", "calibration error", "published as")


def _scores(run: ComparedRun) -> list[str]:
    evaluation = run.evaluation
    low, high = evaluation.accuracy_interval
    return [
        percent(evaluation.accuracy),
        f"{percent(low)} to {percent(high)}",
        f"{int((evaluation.digits != evaluation.labels).sum()):,}",
        f"{evaluation.loss:.4f}",
        percent(evaluation.calibration_error),
        str(run.version or "-"),
    ]


def _named(runs: Sequence[ComparedRun]) -> list[tuple[str, ComparedRun]]:
    return list(zip(LETTERS, runs, strict=False))


def _difference_facts(letter: str, difference: Difference) -> dict[str, str]:
    points, low, high = (100 * share for share in difference.points)
    return {
        f"{letter} minus A": f"{points:+.2f} points; 95 % interval {low:+.2f} to {high:+.2f}",
        "changed digits": f"{len(difference.newly_correct)} correct in {letter} only, "
        f"{len(difference.newly_wrong)} correct in A only, {len(difference.otherwise_wrong)} wrong in both, differently",
        "test": difference.sentence,
    }


def _settings(runs: Sequence[ComparedRun]) -> str:
    settings = differing_settings(runs)
    if not settings:
        return "<h2>Settings</h2><p>All settings are the same.</p>"
    rows = ((name, *values) for name, values in settings.items())
    return f"<h2>Settings that differ</h2>{table(['setting', *LETTERS[: len(runs)]], rows, 'Settings that differ')}"


def _curves(runs: Sequence[ComparedRun]) -> str:
    rows = {f"{letter}: {run.config.run}": run.rows for letter, run in _named(runs)}
    drawn = (
        chart(
            curves_of_runs(rows, name),
            f"{CURVES[name]} on validation data",
            f"{CURVES[name]} of each run over the epochs",
        )
        for name in ("loss", "accuracy")
    )
    return f"<h2>Curves</h2>{charts(*drawn)}"


def _differences(runs: Sequence[ComparedRun]) -> list[str]:
    images = _test_images(runs[0])
    parts = []
    for letter, run in _named(runs)[1:]:
        difference = compare(runs[0].evaluation, run.evaluation)
        parts.append(f"<h2>{letter} compared with A</h2>{facts(_difference_facts(letter, difference))}")
        for title, positions in (
            (f"Correct in {letter} only", difference.newly_correct),
            ("Correct in A only", difference.newly_wrong),
            ("Wrong in both, differently", difference.otherwise_wrong),
        ):
            parts.append(_gallery(title, positions, runs[0].evaluation, run.evaluation, letter, images))
    return parts


def _gallery(
    title: str, positions: np.ndarray, first: Evaluation, other: Evaluation, letter: str, images: np.ndarray | str
) -> str:
    if not len(positions):
        return ""
    count = f"{len(positions)}" if len(positions) <= SHOWN else f"the first {SHOWN} of {len(positions):,}"
    head = f"<h3>{title}: {count}</h3>"
    if isinstance(images, str):
        return f'{head}<p class="muted">{escape(images)}</p>'
    shown = positions[:SHOWN]
    captions = (f"A: {was}, {letter}: {now}" for was, now in zip(first.digits[shown], other.digits[shown], strict=True))
    return head + digits(images[shown], first.labels[shown], captions)


def _test_images(run: ComparedRun) -> np.ndarray | str:
    """Return the test images uint8 [N, 28, 28], or why they cannot be shown."""
    try:
        _, test = read_dataset(run.config.dataset, run.config.data_path)
    except DataError as error:
        return f"The test digits cannot be shown: {error}"
    if test.digest != run.test_digest:
        return f"The test digits cannot be shown: {run.config.data_path} now has other ones."
    return test.images


def _read_run(folder: Path) -> ComparedRun:
    place = {"artifacts": folder.resolve().parent.parent, "run": folder.resolve().name}
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"{folder}: no run (config.json is missing); `{command_line('runs')}` lists the runs")
    config = resolve(file=folder / CONFIG_FILE, flags=place)
    results = [read_result(folder / name) for name in (RESULT_FILE, TRIAL_FILE, EVALUATE_FILE, PUBLISH_FILE)]
    scored = [result for result in results if result and result.evaluation and "test" in result.data]
    if not scored or not (folder / PREDICTIONS_FILE).is_file():
        is_trained = (folder / WEIGHTS_FILE).is_file()
        advice = f"run `{command_line('evaluate', folder)}` first" if is_trained else "it is not trained to its end"
        raise ConfigError(f"{folder}: has no predictions for the test split: {advice}")
    latest = max(scored, key=lambda result: result.finished)
    try:
        with np.load(folder / PREDICTIONS_FILE) as saved:
            evaluation = score(saved["probabilities"], saved["labels"], latest.evaluation["loss"])
    except (BadZipFile, EOFError, ValueError, KeyError, zlib.error) as error:
        raise ConfigError(
            f"{folder / PREDICTIONS_FILE}: is damaged ({error}); `{command_line('evaluate', folder)}` writes it again"
        ) from error
    versions = [result.published["version"] for result in results if result and result.published]
    return ComparedRun(
        folder=folder,
        config=config,
        facts=latest.facts,
        revision=latest.environment.get("revision", "unknown"),
        version=max(versions, default=None),
        test_digest=latest.data["test"],
        evaluation=evaluation,
        rows=read_rows(folder),
    )


def _data_of(run: ComparedRun) -> str:
    return f"{run.config.dataset}, SHA-256 {run.test_digest[:12]}"
