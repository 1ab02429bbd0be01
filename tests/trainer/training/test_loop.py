"""The training loop: exact repetition, early stopping, divergence, and profiles."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests.trainer.conftest import run_trainer
from tests.trainer.runner import UNREPORTED
from trainer.config import ConfigError, TrainConfig, resolve
from trainer.evaluation.metrics import evaluate
from trainer.evaluation.predict import compile_predict
from trainer.runs.signals import StoppedError
from trainer.runs.tracking import Tracker
from trainer.settings import OptimizerSettings
from trainer.training.distribute import choose_devices
from trainer.training.loop import DivergedError, Hooks, call_boundaries, evaluation_steps, total_steps, train
from trainer.training.optimizer import learning_rates


def run(splits, tracker=None, **flags):
    config = resolve("quickstart", flags={"epochs": 2.0, "width": 0.25, **flags})
    return train(config, splits, choose_devices(), Hooks(tracker=tracker or Tracker()))


def test_learning_rates_rise_then_fall() -> None:
    def rates_of(steps: int, schedule: str) -> np.ndarray:
        fractions = {"warmup_fraction": 0.2, "final_learning_rate_fraction": 0.1}
        return learning_rates(steps, OptimizerSettings(learning_rate=0.1, schedule=schedule, **fractions))

    for schedule in ("linear", "cosine"):
        rates = rates_of(100, schedule)
        assert len(rates) == 100
        assert rates.argmax() == 19
        assert (rates[0], rates.max(), rates[-1]) == pytest.approx((0.005, 0.1, 0.01))
        assert (np.diff(rates[20:]) < 0).all()
    assert rates_of(100, "constant")[20:] == pytest.approx(0.1)
    assert len(rates_of(1, "cosine")) == 1


def test_the_recorded_learning_rate_is_that_of_the_last_step(splits, tracker) -> None:
    steps = run(splits, tracker, epochs=0.5, model="mlp").steps
    rates = learning_rates(steps, resolve("quickstart"))
    for row in tracker.rows:
        if row["kind"] == "train":
            assert row["learning_rate"] == pytest.approx(rates[row["step"] - 1])


def test_steps_cover_the_epochs_and_calls_stop_at_every_evaluation() -> None:
    assert total_steps(2.0, 100, 32) == 7
    assert total_steps(0.001, 100, 32) == 1
    assert evaluation_steps(7, 100, 32) == [4, 7]
    assert evaluation_steps(2, 100, 32) == [2]
    assert evaluation_steps(7, 100, 32, every=3) == [3, 6, 7]
    assert call_boundaries(7, 3, {4, 7}) == [3, 4, 6, 7]
    assert call_boundaries(20, 4, {20}, range(5, 14)) == [4, 5, 14, 16, 20]
    assert call_boundaries(20, 4, {10, 20}, range(14)) == [10, 14, 16, 20]


@pytest.mark.parametrize("model", ["mlp", "lenet", "resnet"])  # most other tests train a cnn
def test_every_network_learns(model: str, splits, tracker) -> None:
    result = run(splits, tracker, model=model, epochs=4.0, width=0.5)
    accuracy = evaluate(compile_predict(result.model), splits.validation).accuracy
    assert accuracy > 0.9
    validation = [row for row in tracker.rows if row["kind"] == "validation"]
    assert [row["step"] for row in validation] == evaluation_steps(result.steps, len(splits.train), 64)
    assert validation[-1]["accuracy"] == pytest.approx(accuracy)
    assert len(result.losses) == result.steps == tracker.steps


@pytest.mark.parametrize(
    "flags",
    [
        {"optimizer": "adam", "label_smoothing": 0.1, "unaugmented_epochs": 1.0, "dropout": 0.5},
        {"precision": "mixed_bfloat16", "ema_decay": 0.0, "schedule": "constant"},
        {"strategy": "mirrored", "replicas": 1},
        {"jit_compile": True, "model": "mlp"},
    ],
    ids=str,
)
def test_every_kind_of_training_lowers_the_loss(flags: dict, splits) -> None:
    losses = run(splits, **flags).losses
    assert losses[-5:].mean() < 0.7 * losses[:5].mean()


def test_losses_depend_neither_on_steps_per_call_nor_on_earlier_trainings(splits) -> None:
    flags = {"model": "lenet", "dropout": 0.3}
    one, seven = (run(splits, steps_per_call=steps, **flags).losses for steps in (1, 7))
    np.testing.assert_allclose(one, seven, rtol=1e-4)
    assert not np.allclose(one, run(splits, seed=1, **flags).losses, rtol=1e-2)


def test_evaluations_every_n_steps_and_a_profile_change_no_loss(splits, tracker, tmp_path) -> None:
    flags = {"epochs": 1.0, "width": 0.25, "deterministic": True, "model": "lenet"}
    expected = run(splits, **flags).losses
    config = resolve("quickstart", flags={**flags, "evaluate_every": 5, "profile": "3:7"})
    hooks = Hooks(tracker=tracker, profile_folder=tmp_path)
    losses = train(config, splits, choose_devices(), hooks).losses
    assert np.array_equal(losses, expected)
    evaluated = [row["step"] for row in tracker.rows if row["kind"] == "validation"]
    assert evaluated == [*range(5, len(losses), 5), len(losses)]
    profiles = list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
    assert profiles
    assert any(b"train" in profile.read_bytes() for profile in profiles)


def test_a_profile_beyond_the_last_step_is_refused(splits) -> None:
    with pytest.raises(ConfigError, match="profile is 30:50, but the run has 40 steps; expected STOP <= 40"):
        run(splits, profile="30:50")


def test_early_stopping_restores_the_best_weights(splits, tracker) -> None:
    # The learning rate is far too high: validation gets worse after a good start.
    flags = {"learning_rate": 0.02, "warmup_fraction": 0.0, "schedule": "constant", "ema_decay": 0.0, "model": "mlp"}
    result = run(splits, tracker, epochs=60.0, early_stopping_patience=3, **flags)
    validation = [row for row in tracker.rows if row["kind"] == "validation"]
    best = min(validation, key=lambda row: row["loss"])
    assert result.steps < tracker.steps, "it stopped early"
    assert len(validation) == validation.index(best) + 1 + 3
    assert evaluate(compile_predict(result.model), splits.validation).loss == pytest.approx(best["loss"], rel=1e-5)


def test_a_batch_that_the_replicas_cannot_share_equally_is_rejected(splits) -> None:
    devices = dataclasses.replace(choose_devices(), strategy=SimpleNamespace(num_replicas_in_sync=3))
    with pytest.raises(ConfigError, match="global_batch_size is 64 on 3 replicas"):
        train(TrainConfig(), splits, devices, Hooks())


def test_divergence_of_the_validation_loss_ends_the_run(splits) -> None:
    with pytest.raises(DivergedError, match="the validation loss became nan after step 1"):
        run(splits, learning_rate=1e30, model="mlp", warmup_fraction=0.0, optimizer="adam", epochs=0.01, ema_decay=0.0)


def test_divergence_ends_the_run_and_names_the_step(splits) -> None:
    with pytest.raises(DivergedError, match=r"became (nan|inf) at step \d+; nothing is published"):
        run(splits, learning_rate=1e30, model="mlp", warmup_fraction=0.0, optimizer="adam")


def test_a_stop_request_is_obeyed_between_two_calls(splits, tracker) -> None:
    config = TrainConfig(width=0.25)
    hooks = Hooks(tracker=tracker, stop_requested=lambda: bool(tracker.rows))
    with pytest.raises(StoppedError, match="after step 16 of"):
        train(config, splits, choose_devices(), hooks)


def test_the_best_weights_are_kept_even_if_training_never_stops_early(splits, tracker) -> None:
    flags = {"learning_rate": 0.02, "warmup_fraction": 0.0, "schedule": "constant", "ema_decay": 0.0, "model": "mlp"}
    result = run(splits, tracker, epochs=8.0, early_stopping_patience=8, **flags)
    best = min(row["loss"] for row in tracker.rows if row["kind"] == "validation")
    assert result.steps == tracker.steps
    assert evaluate(compile_predict(result.model), splits.validation).loss == pytest.approx(best, rel=1e-5)


def train_in_a_process(artifacts, run: str, *flags: object) -> tuple[np.ndarray, dict]:
    """Loss of each step, and result.json, of a run of the quickstart preset."""
    common = ("--artifacts", artifacts, "--run", run, "--no-publish", "--steps-per-call", 1)
    done = run_trainer("train", *common, "--width", 0.5, "--pen-weight", 0, *flags, patches=UNREPORTED)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (artifacts / "runs" / run / "metrics.jsonl").read_text().splitlines()]
    losses = np.array([row["loss"] for row in rows if row["kind"] == "train"])
    return losses, json.loads((artifacts / "runs" / run / "result.json").read_text())


@pytest.mark.parametrize(
    ("model", "precision"), [("lenet", "float32"), pytest.param("cnn", "float64", marks=pytest.mark.slow)]
)
def test_two_replicas_have_the_losses_of_one(model, precision, tmp_path) -> None:
    # Rounding differences grow from step to step, and faster at a higher learning rate. Batch norm multiplies them, so
    # that network is compared in float64, where rounding cannot explain a difference.
    flags = ("--model", model, "--precision", precision, "--epochs", 6, "--learning-rate", 2e-4, "--dropout", 0.3)
    one, first = train_in_a_process(tmp_path, "one", "--replicas", 1, *flags)
    two, second = train_in_a_process(tmp_path, "two", "--replicas", 2, *flags)
    assert len(one) > 100
    np.testing.assert_allclose(one[:100], two[:100], rtol=1e-4)
    assert first["evaluation"]["accuracy"] == second["evaluation"]["accuracy"]
    assert "CPU:1" in second["facts"]["devices"]
