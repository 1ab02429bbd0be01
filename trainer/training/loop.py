"""The training loop: one code path for one device, several devices and several workers.

A call of the compiled function (`trainer.training.train_step`) runs many steps. Between calls, and only there, Python
checks the losses, reports, evaluates, saves checkpoints and decides whether to continue.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer.config import ConfigError, TrainConfig, refuse_mismatch
from trainer.data.split import Split, Splits
from trainer.errors import ExitCode, RunError
from trainer.evaluation.metrics import cross_entropy
from trainer.evaluation.predict import Predict, compile_predict
from trainer.precision import fixed_precision
from trainer.runs.checkpoint import Checkpoints
from trainer.runs.signals import StoppedError
from trainer.runs.tracking import Tracker
from trainer.training.distribute import SET_UP_SECONDS, Devices
from trainer.training.input_pipeline import ReplicaSlice, replica_datasets
from trainer.training.model import build_model
from trainer.training.optimizer import build_optimizer, learning_rates
from trainer.training.train_state import Best, TrainingState
from trainer.training.train_step import Learner, StepResults, StepSettings, compile_steps

REMEDY = "nothing is published. Lower --learning-rate, lengthen --warmup-fraction, or use --precision float32"


class DivergedError(RunError):
    """The loss is no longer a finite number."""

    exit_code = ExitCode.DIVERGED


@dataclass(frozen=True)
class Trained:
    """The result of training."""

    model: keras.Model
    """A plain float32 model outside any strategy, with the weights to evaluate and export."""
    losses: np.ndarray
    """Training loss of each step, float32 [steps]."""
    steps: int
    """Steps that ran: fewer than planned if training stopped early."""
    seconds: float
    """Wall time of the steps, without set-up and evaluations."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls between two calls of the compiled function; the defaults do nothing."""

    tracker: Tracker = field(default_factory=Tracker)
    """Gets the metrics."""
    checkpoints: Checkpoints | None = None
    """Where the state is saved and resumed from; None trains from the start and saves nothing."""
    stop_requested: Callable[[], bool] = lambda: False
    """Whether training has to stop before the next call."""
    profile_folder: Path | None = None
    """Takes the profile of the steps that the config wants profiled; None = no profile."""


def train(
    config: TrainConfig, splits: Splits, devices: Devices, hooks: Hooks, initial: keras.Model | None = None
) -> Trained:
    """Train one model as the config says, from the newest checkpoint if there is one.

    Args:
        config: the settings of the run.
        splits: `train` has the examples to learn from; `validation` is evaluated after each epoch, or as
            `evaluate_every` says, and nothing is learned from it; the others are not used.
        devices: where the replicas run.
        hooks: metrics, checkpoints and requests to stop.
        initial: its weights are the first ones; None = random weights.

    Raises:
        ConfigError: the global batch cannot be divided among the replicas, or the newest checkpoint belongs to another
            config or other data.
        DivergedError: a loss, in training or validation, became NaN or infinite.
        StoppedError: a stop was requested between two calls, on any worker; the state is saved.
        OSError: the last checkpoint could not be written.
    """
    if config.global_batch_size % devices.replicas:
        raise ConfigError(
            f"global_batch_size is {config.global_batch_size} on {devices.replicas} replicas; expected a multiple of that"
        )
    keras.utils.set_random_seed(config.seed)
    examples_per_epoch = len(splits.train)
    steps = total_steps(config.epochs, examples_per_epoch, config.global_batch_size)
    rates = learning_rates(steps, config)
    with devices.bounded(SET_UP_SECONDS):  # The chief's initial values are broadcast.
        learner = build_learner(config, rates, devices, initial)
    eval_model = build_model(config.model, width=config.width, dropout=config.dropout)
    state = TrainingState(learner.variables, steps)
    resume(state, hooks.checkpoints, devices)
    predict = compile_predict(eval_model)
    run_steps = _compile(config, learner, splits.train, devices, state)
    saved_to = hooks.checkpoints if devices.is_chief else None
    evaluate_after = set(
        evaluation_steps(steps, examples_per_epoch, config.global_batch_size, every=config.evaluate_every)
    )
    profiled = config.profiled_steps
    if profiled.stop > steps:
        raise ConfigError(f"profile is {config.profile}, but the run has {steps} steps; expected STOP <= {steps}")
    hooks.tracker.start(steps, state.step)
    set_up_seconds = SET_UP_SECONDS
    for stop in call_boundaries(steps, config.steps_per_call, evaluate_after, profiled):
        if stop <= state.step:
            continue
        stopped, state.ended_early = devices.any_across_workers(hooks.stop_requested(), state.ended_early)
        if state.ended_early:
            break
        if stopped:
            raise StoppedError(_save_and_explain(state, saved_to))
        started = time.perf_counter()
        folder = hooks.profile_folder if state.step in profiled else None
        with devices.bounded(set_up_seconds), _profile(folder, state.step):
            results = run_steps(tf.constant(stop - state.step))
            losses, correct, input_wait_seconds = (part.numpy() for part in results)
        set_up_seconds = 0.0
        elapsed = time.perf_counter() - started
        _refuse_divergence(losses, state.step)
        state.losses.append(losses)
        state.seconds, state.step = state.seconds + elapsed, stop
        examples = len(losses) * config.global_batch_size
        hooks.tracker.train_interval(
            step=state.step,
            epoch=state.step * config.global_batch_size / examples_per_epoch,
            losses=losses,
            accuracy=float(correct) / examples,
            # Not of the last step run: mixed_float16 skips steps.
            learning_rate=float(rates[max(int(learner.optimizer.iterations.numpy()) - 1, 0)]),
            images_per_second=examples / elapsed,
            input_wait_fraction=float(input_wait_seconds) / elapsed,
        )
        if state.step in evaluate_after and devices.is_chief:
            eval_model.set_weights(learner.weights())
            loss = _validate(predict, splits.validation, state.step, hooks.tracker)
            if config.histograms:
                hooks.tracker.weights(
                    step=state.step, weights={weight.path: weight.numpy() for weight in eval_model.weights}
                )
            if config.early_stopping_patience:
                state.ended_early = _stops_early(state.best, loss, eval_model, config.early_stopping_patience)
        if saved_to and (state.is_finished or saved_to.due(state.step)):
            saved_to.save(state.capture())
    if saved_to:
        saved_to.finish()
    eval_model.set_weights(state.best.weights or learner.weights())
    return Trained(model=eval_model, losses=np.concatenate(state.losses), steps=state.step, seconds=state.seconds)


def build_learner(
    config: TrainConfig, rates: np.ndarray, devices: Devices, initial: keras.Model | None = None
) -> Learner:
    """Build a model and its optimizer, mirrored on all replicas, and averages of its weights if the config wants them.

    Args:
        config: model, optimizer and precision.
        rates: learning rate of each step, float32 [steps].
        devices: where the variables live.
        initial: its weights are the first ones; None = random weights.
    """
    with devices.strategy.scope():
        precision = fixed_precision(config.precision)
        model = build_model(config.model, width=config.width, dropout=config.dropout, precision=precision)
        if initial:
            model.set_weights(initial.get_weights())
        optimizer = build_optimizer(config, rates, scale_loss=precision == "mixed_float16")
        optimizer.build(model.trainable_variables)
    ema_weights = [tf.Variable(weight.numpy(), trainable=False) for weight in model.weights] if config.ema_decay else []
    return Learner(model, optimizer, ema_weights)


def resume(state: TrainingState, checkpoints: Checkpoints | None, devices: Devices) -> None:
    """Set the state to that of the newest checkpoint, if there is one; all workers take the same.

    Raises:
        ConfigError: this worker or the checkpoint has other settings or other data.
    """
    if not checkpoints:
        return
    if devices.broadcast_from_chief(lambda: checkpoints.identity_digest) != checkpoints.identity_digest:
        raise ConfigError("this worker has other settings or other data than the chief; give all workers the same")
    if name := devices.broadcast_from_chief(checkpoints.newest):
        checkpoint = checkpoints.read(name)
        refuse_mismatch(checkpoint.identity, checkpoints.identity, f"checkpoint {checkpoints.folder / name}")
        state.restore(checkpoint)


def _compile(
    config: TrainConfig, learner: Learner, train_split: Split, devices: Devices, state: TrainingState
) -> Callable[[tf.Tensor], StepResults]:
    """Compile the function that runs the next n steps."""
    parts = [
        ReplicaSlice(config.seed, config.global_batch_size, replica, devices.replicas)
        for replica in devices.local_replicas
    ]
    datasets = replica_datasets(train_split, range(state.step, state.steps), parts, devices.names)
    inputs = {part.replica: (part, iter(dataset)) for part, dataset in zip(parts, datasets, strict=True)}
    unaugmented = round(config.unaugmented_epochs * len(train_split) / config.global_batch_size)
    settings = StepSettings(
        augmentation=config,
        augmented_steps=state.steps - unaugmented,
        label_smoothing=config.label_smoothing,
        ema_decay=config.ema_decay,
        deterministic=config.deterministic,
        jit_compile=config.jit_compile,
    )
    return compile_steps(learner, settings, inputs, devices.strategy)


def _validate(predict: Predict, validation: Split, step: int, tracker: Tracker) -> float:
    """Return the loss on the validation split, which is recorded together with the accuracy."""
    logits = predict(validation.images)
    loss = cross_entropy(logits, validation.labels)
    if not np.isfinite(loss):
        raise DivergedError(f"the validation loss became {loss} after step {step}; {REMEDY}")
    tracker.validation(step=step, loss=loss, accuracy=float((logits.argmax(axis=1) == validation.labels).mean()))
    return loss


def total_steps(epochs: float, examples: int, global_batch_size: int) -> int:
    """Return the number of steps that cover `epochs` passes, rounded up."""
    return max(1, -(-round(epochs * examples) // global_batch_size))


def evaluation_steps(steps: int, examples: int, global_batch_size: int, *, every: int = 0) -> list[int]:
    """Return the steps after which to evaluate, the last one among them.

    Args:
        steps: of the whole run.
        examples: in an epoch.
        global_batch_size: examples per step.
        every: steps between evaluations; 0 = after the first step at or past each epoch's end.
    """
    if every:
        return sorted({*range(every, steps, every), steps})
    per_epoch = examples / global_batch_size
    ends = (int(np.ceil(per_epoch * epoch)) for epoch in range(1, int(steps / per_epoch) + 1))
    return sorted({*(end for end in ends if end <= steps), steps})


def call_boundaries(steps: int, steps_per_call: int, stops: set[int], profiled: range = range(0)) -> list[int]:
    """Return the steps after which the compiled function returns to Python.

    All profiled steps are in one call, unless it has to stop among them.
    """
    regular = {step for step in range(steps_per_call, steps, steps_per_call) if step not in profiled}
    edges = {step for step in (profiled.start, profiled.stop) if profiled and step}
    return sorted({*regular, *edges, *stops, steps})


@contextmanager
def _profile(folder: Path | None, step: int) -> Iterator[None]:
    """Profile the body, which runs the steps from `step` on, into `folder`, as TensorBoard expects it; None does not."""
    if not folder:
        yield
        return
    with tf.profiler.experimental.Profile(f"{folder}"), tf.profiler.experimental.Trace("train", step_num=step):
        yield


def _save_and_explain(state: TrainingState, checkpoints: Checkpoints | None) -> str:
    message = f"stopped by a signal after step {state.step} of {state.steps}; nothing is published"
    if not checkpoints:
        return message
    checkpoints.save(state.capture())
    checkpoints.finish()
    return f"{message}. The state is saved"


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
