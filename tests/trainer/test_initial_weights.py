"""`--init-from` takes the weights of a run, by name or folder, or of a version, by number or folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.conftest import read_result, run_trainer
from tests.trainer.runner import QUICK_PUBLISH
from trainer.config import TrainConfig, resolve
from trainer.errors import ConfigError, ExitCode
from trainer.initial_weights import read_initial_model
from trainer.runs.tracking import read_rows
from trainer.training.distribute import choose_devices
from trainer.training.loop import build_learner
from trainer.training.model import weights_digest

SIZE = {"width": 0.5}
"""That of the run `r` in `finished`."""
SMALL = ("--width", 0.5, "--pen-weight", 0)


@pytest.fixture
def artifacts(finished: Path, tmp_path: Path) -> Path:
    """A copy of the artefacts, to be changed."""
    return shutil.copytree(finished, tmp_path / "artifacts")


def config(artifacts: Path, init_from: str, **flags: object) -> TrainConfig:
    return resolve(flags={"artifacts": artifacts, "init_from": init_from, **SIZE, **flags})


def test_a_run_and_its_published_version_give_the_same_weights(finished: Path) -> None:
    (version,) = (path for path in (finished / "models" / "digits").iterdir() if path.name.isdigit())
    names = ["r", str(finished / "runs" / "r"), version.name, str(version)]
    assert len({weights_digest(read_initial_model(config(finished, name))) for name in names}) == 1


def test_weights_and_their_averages_start_at_the_given_ones_and_the_optimizer_anew(finished: Path) -> None:
    settings = config(finished, "r", ema_decay=0.99)
    initial = read_initial_model(settings)
    learner = build_learner(settings, np.full(10, 1e-3, np.float32), choose_devices(), initial)
    for first, weight, average in zip(initial.get_weights(), learner.model.weights, learner.ema_weights, strict=True):
        assert np.array_equal(first, weight.numpy())
        assert np.array_equal(first, average.numpy())
    assert int(learner.optimizer.iterations.numpy()) == 0


def test_dropout_may_differ_from_that_of_the_initial_run(finished: Path) -> None:
    assert read_initial_model(config(finished, "r", dropout=0.5)).count_params()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"width": 0.25}, r"init_from is r: its network has .* but that of --model cnn --width 0.25 has"),
        ({"model": "lenet"}, r"--model lenet --width 0.5 has .* give the --model and the --width"),
    ],
)
def test_weights_of_another_network_are_rejected_in_words(finished: Path, flags: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_initial_model(config(finished, "r", **flags))


def test_a_run_without_weights_is_rejected(artifacts: Path) -> None:
    unfinished = artifacts / "runs" / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_bytes((artifacts / "runs" / "r" / "config.json").read_bytes())
    with pytest.raises(ConfigError, match="was not trained to its end"):
        read_initial_model(config(artifacts, "unfinished"))


@pytest.mark.parametrize("size", [0, 3000])
def test_damaged_weights_are_named(artifacts: Path, size: int) -> None:
    weights = artifacts / "runs" / "r" / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(ConfigError, match=r"model\.weights\.h5: is damaged, or holds .* restore the file"):
        read_initial_model(config(artifacts, "r"))


def test_a_name_that_is_neither_a_run_nor_a_version_is_rejected_before_any_training(tmp_path: Path) -> None:
    done = run_trainer("train", "--artifacts", tmp_path, "--run", "x", "--init-from", "absent")
    assert done.returncode == ExitCode.USAGE
    assert "init_from is 'absent': neither a run nor a published version" in done.stderr


def test_a_run_from_given_weights_records_them_and_is_not_resumed_from_others(artifacts: Path) -> None:
    flags = ("train", "--artifacts", artifacts, "--run", "second", *SMALL, "--epochs", 1, "--no-publish")
    done = run_trainer(*flags, "--init-from", "r", patches=QUICK_PUBLISH)
    assert done.returncode == ExitCode.OK, done.stderr
    run = artifacts / "runs" / "second"
    assert json.loads((run / "config.json").read_text())["init_from"] == "r"
    assert read_result(run)["facts"]["initial weights"] == "of r, with a new optimizer"
    assert "of r, with a new optimizer" in (run / "model_card.md").read_text()
    one, first = (
        next(row for row in read_rows(folder) if row["kind"] == "validation")
        for folder in (run, artifacts / "runs" / "r")
    )
    assert one["step"] == first["step"]
    assert one["loss"] < 0.5 * first["loss"], "after one epoch each: it continues from there"
    again = run_trainer(*flags)
    assert again.returncode == ExitCode.USAGE
    assert "init_from was 'r' and is ''" in again.stderr
