"""The trials of a search: which settings come next, how a killed search resumes, which trials stop early."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import ConfigError
from trainer.tuning.search_space import parse
from trainer.tuning.study import JOURNAL_FILE, Study

GIVEN = {"learning_rate": 4e-3, "dropout": 0.0, "model": "cnn", "early_stopping_patience": 0}


def open_study(folder: Path, *texts: str, sampler: Any = "tpe", seed: int = 0, prune: bool = True) -> Study:
    dimensions = [parse(text) for text in texts]
    given = {dimension.name: GIVEN[dimension.name] for dimension in dimensions}
    shared = {"epochs": 20.0}
    return Study(folder, given, dimensions, what_all_compute=shared, sampler=sampler, prune=prune, seed=seed)


def run_trials(study: Study, count: int) -> list[dict[str, Any]]:
    """Run that many trials whose loss is least at dropout 0.2; return the settings of all."""
    for _ in range(count):
        number = study.begin_trial()
        study.finish(number, abs(study.settings(number).get("dropout", 0.0) - 0.2) + 0.01)
    return [study.settings(number) for number in study.numbers()]


CONTINUOUS = ("learning_rate=1e-4:1e-2:log", "dropout=0:0.5")


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_the_first_trial_has_the_given_settings_and_no_two_have_the_same(tmp_path: Path, sampler: str) -> None:
    settings = run_trials(open_study(tmp_path, *CONTINUOUS, sampler=sampler), 12)
    assert settings[0] == {"learning_rate": 4e-3, "dropout": 0.0}
    assert len({tuple(one.values()) for one in settings}) == 12
    assert all(1e-4 <= one["learning_rate"] <= 1e-2 and 0 <= one["dropout"] <= 0.5 for one in settings)


def test_quasi_random_trials_spread_evenly(tmp_path: Path) -> None:
    settings = run_trials(open_study(tmp_path, *CONTINUOUS, sampler="qmc"), 18)[2:]
    for low in (0.0, 0.125, 0.25, 0.375):
        assert 3 <= sum(low <= one["dropout"] < low + 0.125 for one in settings) <= 5


def test_tpe_draws_where_the_loss_is_low(tmp_path: Path) -> None:
    settings = run_trials(open_study(tmp_path, "dropout=0:0.5"), 30)
    late = [abs(one["dropout"] - 0.2) for one in settings[10:]]
    assert sum(late) / len(late) < 0.1, "0.13 if they were spread evenly"


def test_every_value_of_every_choice_is_tried_at_least_once(tmp_path: Path) -> None:
    settings = run_trials(
        open_study(tmp_path, "model=mlp,lenet,cnn", "early_stopping_patience=0,2,4,6", "dropout=0:0.5"), 4
    )
    assert {one["model"] for one in settings} == {"mlp", "lenet", "cnn"}
    assert {one["early_stopping_patience"] for one in settings} == {0, 2, 4, 6}


def test_a_space_of_few_settings_is_tried_completely_without_repetition(tmp_path: Path) -> None:
    study = open_study(tmp_path, "model=mlp,cnn", "early_stopping_patience=0:2")
    assert study.size == 6
    settings = run_trials(study, 6)
    assert len({tuple(one.values()) for one in settings}) == 6
    with pytest.raises(ConfigError, match="no different settings were found"):
        study.begin_trial()


def test_given_settings_outside_of_the_ranges_are_tried_but_not_modelled(tmp_path: Path) -> None:
    study = open_study(tmp_path, "dropout=0.1:0.5")
    settings = run_trials(study, 12)
    assert settings[0] == {"dropout": 0.0}
    assert all(0.1 <= one["dropout"] <= 0.5 for one in settings[1:])


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_a_search_that_is_killed_after_every_step_has_the_trials_of_one_left_alone(
    tmp_path: Path, sampler: str
) -> None:
    texts = (*CONTINUOUS, "model=mlp,cnn")
    (tmp_path / "alone").mkdir()
    (tmp_path / "killed").mkdir()
    alone = run_trials(open_study(tmp_path / "alone", *texts, sampler=sampler), 12)
    for count in range(12):
        study = open_study(tmp_path / "killed", *texts, sampler=sampler)
        number = study.begin_trial()
        assert number == count
        study = open_study(tmp_path / "killed", *texts, sampler=sampler)
        assert study.running() == [number]
        study.report(number, 1, 2.0)
        study = open_study(tmp_path / "killed", *texts, sampler=sampler)
        assert study.running() == [number]
        study.finish(number, abs(study.settings(number)["dropout"] - 0.2) + 0.01)
    study = open_study(tmp_path / "killed", *texts, sampler=sampler)
    assert study.running() == []
    assert [study.settings(number) for number in study.numbers()] == alone


def journal_lines(folder: Path) -> Sequence[bytes]:
    return (folder / JOURNAL_FILE).read_bytes().splitlines(keepends=True)


def test_a_kill_at_any_line_of_the_journal_loses_and_repeats_no_trial(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    alone = run_trials(open_study(tmp_path / "whole", *CONTINUOUS, "model=mlp,cnn"), 5)
    lines = journal_lines(tmp_path / "whole")
    for cut in range(len(lines)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        torn = lines[cut][: len(lines[cut]) // 2]
        (folder / JOURNAL_FILE).write_bytes(b"".join(lines[:cut]) + torn)
        study = open_study(folder, *CONTINUOUS, "model=mlp,cnn")
        running = study.running()
        finished = [number for number in study.numbers() if number not in running]
        for number in running:
            study.finish(number, abs(study.settings(number)["dropout"] - 0.2) + 0.01)
        settings = run_trials(study, 5 - len(study.numbers()))
        assert study.numbers() == [0, 1, 2, 3, 4]
        assert len({tuple(one.values()) for one in settings}) == 5
        assert [settings[number] for number in finished] == alone[: len(finished)]


def test_a_clearly_worse_trial_stops_early_and_the_first_one_never_does(tmp_path: Path) -> None:
    study = open_study(tmp_path, "dropout=0:0.5")

    def run(loss: float) -> tuple[int, list[bool]]:
        number = study.begin_trial()
        verdicts = [study.report(number, epoch, loss + 1 / epoch) for epoch in range(1, 6)]
        study.finish(number, None if any(verdicts) else loss)
        return number, verdicts

    assert not any(run(9.0)[1])
    for loss in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        run(loss)
    number, verdicts = run(2.0)
    assert verdicts == [False, False, False, True, True] or verdicts == [False, False, True, True, True]
    assert not any(run(0.15)[1])
    study = open_study(tmp_path, "dropout=0:0.5")
    assert number in study.numbers()
    study = open_study(tmp_path, "dropout=0:0.5", prune=False)
    assert not any(run(2.0)[1])


def test_a_search_with_other_settings_is_refused_under_the_same_name(tmp_path: Path) -> None:
    run_trials(open_study(tmp_path, "dropout=0:0.5"), 1)
    with pytest.raises(ConfigError, match="vary was"):
        open_study(tmp_path, "dropout=0:0.4")
    with pytest.raises(ConfigError, match="sampler was 'tpe' and is 'qmc'"):
        open_study(tmp_path, "dropout=0:0.5", sampler="qmc")
    (tmp_path / JOURNAL_FILE).write_text("no journal\n")
    with pytest.raises(ConfigError, match=r"is damaged .* another --run"):
        open_study(tmp_path, "dropout=0:0.5")


def test_importance_is_highest_for_what_decides_the_loss(tmp_path: Path) -> None:
    study = open_study(tmp_path, *CONTINUOUS)
    run_trials(study, 3)
    assert study.importances() == {}
    run_trials(study, 17)
    importances = study.importances()
    assert sum(importances.values()) == pytest.approx(1)
    assert importances["dropout"] > importances["learning_rate"]
