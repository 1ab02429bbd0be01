"""The training loop: one code path for one device, several devices and several workers.

A call of the compiled function (`trainer.training.train_step`) runs many steps. Between calls, and only there, Python
looks at the losses, reports, evaluates and decides whether to go on.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from trainer.config import ConfigError, TrainConfig, refuse_mismatch
from trainer.data.split import Split
from trainer.errors import ExitCode, RunError
from trainer.evaluation.metrics import compile_predict, cross_entropy
from trainer.runs.checkpoint import Checkpoints
from trainer.runs.signals import StoppedError
from trainer.runs.tracking import Tracker
from trainer.training.distribute import Devices
from trainer.training.model import build_model
from trainer.training.optimizer import build_optimizer
from trainer.training.train_state import Best, TrainingState
from trainer.training.train_step import compile_steps

REMEDY = "nothing is published. Lower --learning-rate, lengthen --warmup-fraction, or use --precision float32"


class DivergedError(RunError):
    """The loss is not a finite number any more."""

    exit_code = ExitCode.DIVERGED


@dataclass(frozen=True)
class Trained:
    """What training leaves behind."""

    model: keras.Model
    """A plain float32 model outside any strategy, with the weights to evaluate and export."""
    losses: np.ndarray
    """Training loss of each step, float32 [steps]."""
    steps: int
    """Steps that ran: fewer than planned if training stopped early."""
    seconds: float
    """Wall time of the steps alone, without set-up and evaluations."""


def train(
    config: TrainConfig,
    train_split: Split,
    validation: Split,
    devices: Devices,
    tracker: Tracker,
    checkpoints: Checkpoints | None = None,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train one model as the config says, from the newest of `checkpoints` if there is one.

    Raises:
        ConfigError: the global batch does not divide by the number of replicas, or the newest checkpoint belongs to
            another config or other data.
        DivergedError: a loss, in training or validation, became NaN or infinite.
        StoppedError: `stop_requested` said so between two calls, on any worker; the state has been saved.
        OSError: the last checkpoint could not be written.
    """
    if config.global_batch_size % devices.replicas:
        raise ConfigError(
            f"global_batch_size is {config.global_batch_size} on {devices.replicas} replicas; expected a multiple of that"
        )
    keras.utils.set_random_seed(config.seed)
    steps = total_steps(config.epochs, len(train_split), config.global_batch_size)
    with devices.strategy.scope():
        model = build_model(config.model, width=config.width, dropout=config.dropout, precision=config.precision)
        optimizer = build_optimizer(config, steps)
        optimizer.build(model.trainable_variables)
    plain = build_model(config.model, width=config.width, dropout=config.dropout)
    average = [tf.Variable(weight.numpy(), trainable=False) for weight in model.weights] if config.ema_decay else []
    state = TrainingState([*model.variables, *optimizer.variables, *average], steps)
    if checkpoints and devices.from_chief(lambda: checkpoints.identity_digest) != checkpoints.identity_digest:
        raise ConfigError("this worker has other settings or other data than the chief; give all workers the same")
    if checkpoints and (name := devices.from_chief(checkpoints.newest)):
        checkpoint = checkpoints.read(name)
        refuse_mismatch(checkpoint.identity, checkpoints.identity, f"checkpoint {checkpoints.folder / name}")
        state.restore(checkpoint)
    predict = compile_predict(plain)
    run_steps = compile_steps(config, state.step, steps, train_split, devices, model, optimizer, average)

    def copy_weights() -> None:
        plain.set_weights([weight.numpy() for weight in (average or model.weights)])

    saved_to = checkpoints if devices.is_chief else None
    evaluate_after = set(evaluation_steps(steps, len(train_split), config.global_batch_size))
    tracker.start(steps, state.step)
    for stop in call_boundaries(steps, config.steps_per_call, evaluate_after):
        if stop <= state.step:
            continue
        stopped, state.ended_early = devices.any_worker(stop_requested(), state.ended_early)
        if state.ended_early:
            break
        if stopped:
            raise StoppedError(_save_and_say(state, saved_to))
        started = time.perf_counter()
        losses, correct, waited = (part.numpy() for part in run_steps(tf.constant(stop - state.step)))
        elapsed = time.perf_counter() - started
        _refuse_divergence(losses, state.step)
        state.losses.append(losses)
        state.seconds, state.step = state.seconds + elapsed, stop
        tracker.train_interval(
            step=state.step,
            epoch=state.step * config.global_batch_size / len(train_split),
            losses=losses,
            accuracy=float(correct) / (len(losses) * config.global_batch_size),
            learning_rate=float(optimizer.learning_rate),
            images_per_second=len(losses) * config.global_batch_size / elapsed,
            input_wait_fraction=float(waited) / elapsed,
        )
        if state.step in evaluate_after and devices.is_chief:
            copy_weights()
            logits = predict(validation.images)
            loss = cross_entropy(logits, validation.labels)
            accuracy = float((logits.argmax(axis=1) == validation.labels).mean())
            if not np.isfinite(loss):
                raise DivergedError(f"the validation loss became {loss} after step {state.step}; {REMEDY}")
            tracker.validation(step=state.step, loss=loss, accuracy=accuracy)
            if config.early_stopping_patience:
                state.ended_early = _stops_early(state.best, loss, plain, config.early_stopping_patience)
        if saved_to and (state.is_trained or saved_to.due(state.step)):
            saved_to.save(state.capture())
    if saved_to:
        saved_to.finish()
    if state.best.weights:
        plain.set_weights(state.best.weights)
    else:
        copy_weights()
    return Trained(model=plain, losses=np.concatenate(state.losses), steps=state.step, seconds=state.seconds)


def total_steps(epochs: float, examples: int, global_batch_size: int) -> int:
    """Steps that cover `epochs` passes; the last one is taken whole."""
    return max(1, -(-round(epochs * examples) // global_batch_size))


def evaluation_steps(steps: int, examples: int, global_batch_size: int) -> list[int]:
    """The steps after which to evaluate: the first at or past each epoch's end, and the last."""
    per_epoch = examples / global_batch_size
    ends = (int(np.ceil(per_epoch * epoch)) for epoch in range(1, int(steps / per_epoch) + 1))
    return sorted({*(end for end in ends if end <= steps), steps})


def call_boundaries(steps: int, steps_per_call: int, stops: set[int]) -> list[int]:
    """The steps after which control comes back to Python."""
    return sorted({*range(steps_per_call, steps, steps_per_call), *stops, steps})


def _save_and_say(state: TrainingState, checkpoints: Checkpoints | None) -> str:
    said = f"stopped by a signal after step {state.step} of {state.steps}; nothing is published"
    if not checkpoints:
        return said
    checkpoints.save(state.capture())
    checkpoints.finish()
    return f"{said}. The state is saved: start the run again, and it goes on from there"


def _refuse_divergence(losses: np.ndarray, first_step: int) -> None:
    finite = np.isfinite(losses)
    if not finite.all():
        step = first_step + int(np.argmin(finite))
        raise DivergedError(f"the training loss became {losses[np.argmin(finite)]} at step {step}; {REMEDY}")


def _stops_early(best: Best, loss: float, model: keras.Model, patience: int) -> bool:
    if loss < best.loss:
        best.loss, best.weights, best.evaluations_since = loss, model.get_weights(), 0
    else:
        best.evaluations_since += 1
    return best.evaluations_since >= patience
