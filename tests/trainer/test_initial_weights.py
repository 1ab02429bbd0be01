"""`--init-from` takes the weights of a run, by name or folder, or of a version, by number or folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.conftest import read_result, run_trainer
from trainer.config import TrainConfig, resolve
from trainer.errors import ConfigError, ExitCode
from trainer.initial_weights import read_initial_model
from trainer.training.distribute import choose_devices
from trainer.training.loop import build_learner
from trainer.training.model import weights_digest

SIZE = {"width": 0.25}
SMALL = ("--width", 0.25, "--pen-weight", 0)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts with one run, `first`, whose model is published."""
    root = tmp_path_factory.mktemp("artifacts")
    done = run_trainer("train", "--artifacts", root, "--run", "first", *SMALL, "--epochs", 2, "--min-accuracy", 0)
    assert done.returncode == ExitCode.OK, done.stderr
    return root


def config(artifacts: Path, init_from: str, **flags: object) -> TrainConfig:
    return resolve(flags={"artifacts": artifacts, "init_from": init_from, **SIZE, **flags})


def test_a_run_and_its_published_version_give_the_same_weights(artifacts: Path) -> None:
    (version,) = (path for path in (artifacts / "models" / "digits").iterdir() if path.name.isdigit())
    names = ["first", str(artifacts / "runs" / "first"), version.name, str(version)]
    assert len({weights_digest(read_initial_model(config(artifacts, name))) for name in names}) == 1


def test_weights_and_their_averages_start_at_the_given_ones_and_the_optimizer_anew(artifacts: Path) -> None:
    settings = config(artifacts, "first", ema_decay=0.99)
    initial = read_initial_model(settings)
    learner = build_learner(settings, np.full(10, 1e-3, np.float32), choose_devices(), initial)
    for first, weight, average in zip(initial.get_weights(), learner.model.weights, learner.ema_weights, strict=True):
        assert np.array_equal(first, weight.numpy())
        assert np.array_equal(first, average.numpy())
    assert int(learner.optimizer.iterations.numpy()) == 0


def test_dropout_may_differ_from_that_of_the_initial_run(artifacts: Path) -> None:
    assert read_initial_model(config(artifacts, "first", dropout=0.5)).count_params()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"width": 0.5}, r"init_from is first: its network has .* but that of --model cnn --width 0.5 has"),
        ({"model": "lenet"}, r"--model lenet --width 0.25 has .* give the --model and the --width"),
    ],
)
def test_weights_of_another_network_are_rejected_in_words(artifacts: Path, flags: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_initial_model(config(artifacts, "first", **flags))


def test_a_run_without_weights_is_rejected(artifacts: Path) -> None:
    unfinished = artifacts / "runs" / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_bytes((artifacts / "runs" / "first" / "config.json").read_bytes())
    with pytest.raises(ConfigError, match="was not trained to its end"):
        read_initial_model(config(artifacts, "unfinished"))


def test_a_name_that_is_neither_a_run_nor_a_version_is_rejected_before_any_training(artifacts: Path) -> None:
    done = run_trainer("train", "--artifacts", artifacts, "--run", "x", "--init-from", "absent")
    assert done.returncode == ExitCode.USAGE
    assert "init_from is 'absent': neither a run nor a published version" in done.stderr


def test_a_run_from_given_weights_records_them_and_is_not_resumed_from_others(artifacts: Path) -> None:
    flags = ("train", "--artifacts", artifacts, "--run", "second", *SMALL, "--epochs", 1, "--no-publish")
    done = run_trainer(*flags, "--init-from", "first")
    assert done.returncode == ExitCode.OK, done.stderr
    run = artifacts / "runs" / "second"
    assert json.loads((run / "config.json").read_text())["init_from"] == "first"
    assert read_result(run)["facts"]["initial weights"] == "of first, with a new optimizer"
    assert "of first, with a new optimizer" in (run / "model_card.md").read_text()
    accuracy = read_result(run)["evaluation"]["accuracy"]
    assert accuracy > read_result(artifacts / "runs" / "first")["evaluation"]["accuracy"], "it continues from there"
    again = run_trainer(*flags)
    assert again.returncode == ExitCode.USAGE
    assert "init_from was 'first' and is ''" in again.stderr
