"""The second step of a run: score the trained model on unseen data. It returns a `Candidate` for the gate."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from percent import percent
from trainer.config import TrainConfig
from trainer.data.split import DataError, Split, Splits
from trainer.errors import ConfigError, memory_errors_explained
from trainer.evaluation.metrics import Evaluation, evaluate, fit_temperature
from trainer.evaluation.predict import compile_predict
from trainer.runs.atomic import write_atomically
from trainer.runs.console import Console
from trainer.runs.environment import utc_now
from trainer.runs.folder import PREDICTIONS_FILE, WEIGHTS_FILE
from trainer.runs.result import RESULT_FILE, TRIAL_FILE, RunResult, read_result
from trainer.runs.signals import deferred_stop
from trainer.runs.tensorboard import TensorBoard
from trainer.steps.train import load_data
from trainer.training.augment import first_batch
from trainer.training.distribute import ONE_DEVICE, choose_devices
from trainer.training.model import load_model


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model, on its way to the gate."""

    config: TrainConfig
    model: keras.Model
    splits: Splits
    facts: dict[str, str]
    evaluation: Evaluation
    """On the test split."""


def evaluate_model(
    config: TrainConfig, model: keras.Model, splits: Splits, result: RunResult, console: Console
) -> Candidate:
    """Score a trained model on the test split, and on the extra pictures that were held out, if there are any.

    Args:
        config: the settings of the run.
        model: a plain model, uint8 [N, 28, 28] -> logits [N, 10].
        splits: the run's data; the temperature is fitted on the validation split.
        result: gets the scores.
        console: prints that it is running.
    """
    # TensorFloat-32, the default on newer GPUs, keeps three digits: too few for the check of the exported files.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    with console.phase(f"Evaluating on {len(splits.test):,} test digits"), deferred_stop(), memory_errors_explained():
        evaluation = score(model, splits.validation, splits.test)
        held_out = score(model, splits.validation, splits.extra) if splits.extra else None
    result.evaluation = evaluation.summary()
    if splits.extra and held_out:
        result.extra = held_out.summary()
        right = int((held_out.digits == held_out.labels).sum())
        result.facts["extra pictures"] = (
            f"{config.extra_data}, {percent(config.extra_weight, 0)} of the training examples; "
            f"{right} of the {len(splits.extra)} held-out ones are right"
        )
    write_atomically(config.run_dir / PREDICTIONS_FILE, evaluation.save)
    return Candidate(config, model, splits, result.facts, evaluation)


def score(model: keras.Model, validation: Split, split: Split) -> Evaluation:
    """Score the model on `split`, with the temperature that fits `validation`."""
    predict = compile_predict(model)
    temperature = fit_temperature(predict(validation.images), validation.labels)
    return evaluate(predict, split, temperature)


def reload_candidate(config: TrainConfig, result: RunResult, console: Console) -> Candidate:
    """Return the candidate of an earlier run, from its saved weights; its scores and facts go into `result`.

    Raises:
        ConfigError: the run was not trained to its end, or its weights are damaged.
        DataError: the data is not what the run was trained with.
    """
    weights = config.run_dir / WEIGHTS_FILE
    if not weights.is_file():
        raise ConfigError(f"{config.run_dir}: this run was not trained to its end ({WEIGHTS_FILE} is missing)")
    trained = read_result(config.run_dir / RESULT_FILE) or read_result(config.run_dir / TRIAL_FILE) or RunResult()
    with deferred_stop():
        choose_devices(ONE_DEVICE)
        model = load_model(config, weights)
    splits = load_data(config)
    refuse_changed_data(config, trained.data, splits.digests)
    result.facts = {**trained.facts, "test split": f"scored again from the saved weights on {utc_now()}"}
    result.environment, result.data = trained.environment, splits.digests
    return evaluate_model(config, model, splits, result, console)


def show_in_tensorboard(candidate: Candidate, board: TensorBoard, step: int) -> None:
    """Add the network, an augmented batch and the scores to the run's TensorBoard."""
    from trainer.evaluation.board import show_batch, show_evaluation  # as in `steps.publish.report`

    with deferred_stop():
        board.graph(candidate.model)
        show_batch(board, first_batch(candidate.splits.train, candidate.config))
        show_evaluation(board, candidate.evaluation, candidate.splits.test, candidate.model, step)


def refuse_changed_data(config: TrainConfig, trained: dict[str, str], now: dict[str, str]) -> None:
    """Refuse to score a run on other data: its new test split may hold examples that it was trained on.

    Raises:
        DataError: naming the parts that differ, and where to look.
    """
    if different := [part for part, digest in now.items() if trained.get(part, digest) != digest]:
        places = "--data-dir in its config.json"
        if config.extra_data and not {"validation", "test"} & set(different):
            places = f"the pictures in {config.extra_data} were added, removed or relabelled since"
        raise DataError(
            f"{config.run_dir}: the {', '.join(different)} data is not what this run was trained with; give it the same "
            f"data ({places}), or train again"
        )
