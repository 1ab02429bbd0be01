"""Scores of trials: intervals, the ranking, warnings, the table, figures and TensorBoard's hparams tab."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.tuning.figures import draw_importances, draw_trials, write_hparams
from trainer.tuning.results import Score, Trial, difference, rank, table, to_json, warn
from trainer.tuning.search_space import parse


def make_trial(number: int, *examples: np.ndarray, outcome: str = "trained", temperature: float = 1.2) -> Trial:
    """A trial with one score for each array of losses."""
    scores = tuple(
        Score(Path(f"runs/s-{number:03}"), seed, float(losses.mean()), 0.97, temperature, losses.astype(np.float32))
        for seed, losses in enumerate(examples)
    )
    settings = {"learning_rate": 1e-3 * (number + 1), "model": ("mlp", "cnn")[number % 2]}
    return Trial(number, Path(f"runs/s-{number:03}"), settings, outcome, scores)


@pytest.fixture
def examples() -> np.ndarray:
    """Losses of 400 validation examples: most are small, a few large."""
    return np.random.default_rng(0).exponential(0.1, 400)


def test_the_margin_is_the_sampling_error_of_the_examples_and_of_the_seeds(examples: np.ndarray) -> None:
    one = make_trial(0, examples)
    assert one.margin == pytest.approx(1.96 * examples.std(ddof=1) / 20, rel=1e-3)
    several = make_trial(0, examples, examples + 0.05, examples - 0.05)
    assert several.loss == pytest.approx(one.loss)
    seeds = 0.05**2 / 3
    assert several.margin == pytest.approx(1.96 * math.sqrt(examples.var(ddof=1) / 400 + seeds), rel=1e-3)
    covered = 0
    for seed in range(200):
        drawn = make_trial(0, np.random.default_rng(seed).exponential(0.1, 400))
        covered += abs(drawn.loss - 0.1) <= drawn.margin
    assert 0.90 <= covered / 200 <= 0.99


def test_trials_are_compared_on_the_same_examples(examples: np.ndarray) -> None:
    """Their difference is far more certain than either loss: the hard examples are hard for both."""
    first, second = make_trial(0, examples), make_trial(1, examples + 0.003)
    lead, margin = difference(first, second)
    assert lead == pytest.approx(0.003, rel=1e-3)
    assert margin < 1e-6 < first.margin
    assert warn([first, second]) == []


def test_a_lead_that_may_be_chance_is_a_warning(examples: np.ndarray) -> None:
    shuffled = np.random.default_rng(1).permutation(examples)
    [warning] = warn([make_trial(0, examples), make_trial(1, shuffled + 0.003)])
    assert "400 validation digits and 1 seed(s) cannot tell s-000 from s-001" in warning
    assert "Raise --validation-size or --seeds" in warning


@pytest.mark.parametrize("temperature", [0.2501, 4.0])
def test_a_temperature_at_its_bound_is_a_warning(examples: np.ndarray, temperature: float) -> None:
    [warning] = warn([make_trial(0, examples, temperature=temperature)])
    assert f"the temperature fitted for s-000, {temperature:.2f}, is at a bound of 0.25 to 4" in warning


def test_trials_with_several_seeds_come_first_and_those_without_a_score_last(examples: np.ndarray) -> None:
    lucky, finalist = make_trial(0, examples - 0.02), make_trial(1, examples, examples)
    diverged = make_trial(2, outcome="diverged")
    assert [trial.number for trial in rank([diverged, lucky, finalist])] == [1, 0, 2]


def test_the_table_and_the_json_show_what_is_known(examples: np.ndarray) -> None:
    trials = [make_trial(1, examples, examples), make_trial(0, examples), make_trial(2, outcome="stopped early")]
    lines = table(trials).splitlines()
    assert lines[0].split() == ["run", "seeds", "loss", "+-", "accuracy", "learning_rate", "model"]
    assert lines[1].split()[:2] == ["s-001", "2"]
    assert "97.00 %" in lines[2]
    assert "stopped early" in lines[3]
    values = json.loads(json.dumps([to_json(trial) for trial in trials], allow_nan=False))
    assert values[2]["loss"] is values[2]["margin_95"] is values[2]["accuracy"] is None
    assert [len(value["seeds"]) for value in values] == [2, 1, 0]


def test_figures_show_trials_and_importances(tmp_path: Path, examples: np.ndarray) -> None:
    dimensions = [parse("learning_rate=1e-3:1e-2:log"), parse("model=mlp,cnn")]
    trials = [make_trial(0, examples), make_trial(1, examples, examples), make_trial(2, outcome="diverged")]
    for name, figure in (
        ("trials", draw_trials(trials, dimensions)),
        ("importances", draw_importances({"learning_rate": 0.7, "model": 0.3})),
    ):
        figure.savefig(tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 300


def test_a_figure_without_any_loss_can_be_drawn(tmp_path: Path) -> None:
    """A logarithmic axis without a value made the figure, and with it the search, fail."""
    dimensions = [parse("learning_rate=1e-3:1e-2:log"), parse("model=mlp,cnn")]
    draw_trials([make_trial(0, outcome="diverged")], dimensions).savefig(tmp_path / "trials.png")


def test_tensorboard_shows_the_settings_and_the_scores_of_each_trial(tmp_path: Path, examples: np.ndarray) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    write_hparams(tmp_path, [make_trial(0, examples), make_trial(1, outcome="diverged")])
    events = EventAccumulator(str(tmp_path / "s-000"))
    events.Reload()
    assert set(events.Tags()["tensors"]) >= {"validation/loss", "validation/accuracy"}
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["learning_rate"].number_value == 1e-3
    assert settings["model"].string_value == "mlp"
    assert {folder.name for folder in tmp_path.iterdir()} == {"s-000", "s-001"}
