"""The compiled step: each replica takes its slice of the global batch, augments it on its device and adds its share of the
gradient. Many steps run per call, without Python between them."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer.settings import AugmentationSettings
from trainer.training.augment import augment, is_identity
from trainer.training.input_pipeline import ReplicaSlice
from trainer.training.model import dropout_noise


@dataclass(frozen=True)
class Learner:
    """Everything that a step changes."""

    model: keras.Model
    optimizer: keras.Optimizer
    ema_weights: list[tf.Variable]
    """Moving averages of all weights of the model, in its order; empty if none are kept."""

    @property
    def variables(self) -> list[Any]:
        """All variables: those of the model and of the optimizer, and the averages."""
        return [*self.model.variables, *self.optimizer.variables, *self.ema_weights]

    def weights(self) -> list[np.ndarray]:
        """Return the weights to evaluate: the averages where they are kept, else those of the model."""
        return [weight.numpy() for weight in (self.ema_weights or self.model.weights)]


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What a step computes."""

    augmentation: AugmentationSettings
    augmented_steps: int
    """The steps from this one on leave the images as they are."""
    label_smoothing: float
    ema_decay: float
    deterministic: bool
    jit_compile: bool


class Batch(NamedTuple):
    """One replica's slice of the batch of a step."""

    step: tf.Tensor
    """int64, number of the step"""
    images: tf.Tensor
    """uint8 [B, 28, 28]"""
    labels: tf.Tensor
    """uint8 [B]"""


class StepResults(NamedTuple):
    """What a call of the compiled function returns of its steps."""

    losses: tf.Tensor
    """float32 [steps], mean over the global batch."""
    correct: tf.Tensor
    """float32 (NCCL reduces no int32 between workers), examples that were classified correctly."""
    input_wait_seconds: tf.Tensor
    """float64, time that the first replica waited for its batches."""


Input = tuple[ReplicaSlice, Iterator]
"""Which slice of each batch a replica takes, and the iterator that yields it: (step, images, labels)."""


def compile_steps(
    learner: Learner, settings: StepSettings, inputs: Mapping[int, Input], strategy: tf.distribute.Strategy
) -> Callable[[tf.Tensor], StepResults]:
    """Compile the function that runs the next n steps.

    Args:
        learner: is changed by each step.
        settings: what a step computes.
        inputs: of each local replica, by its number.
        strategy: whose replicas run the steps.

    Returns:
        The function: number of steps, an int32 scalar -> their results.
    """
    step = functools.partial(replica_step, learner, settings, inputs)

    # AutoGraph would spend more than a second on rewriting the step, which needs none of it.
    @tf.function(autograph=False)
    def run_steps(count: tf.Tensor) -> StepResults:
        def run_step(
            i: tf.Tensor, losses: tf.TensorArray, correct: tf.Tensor, waited: tf.Tensor
        ) -> tuple[tf.Tensor, tf.TensorArray, tf.Tensor, tf.Tensor]:
            loss, correct_here, wait = strategy.run(step)
            losses = losses.write(i, tf.cast(strategy.reduce("SUM", loss, axis=None), tf.float32))
            correct += strategy.reduce("SUM", correct_here, axis=None)
            waited += strategy.experimental_local_results(wait)[0]
            if learner.ema_weights:
                update_ema_weights(learner, settings.ema_decay)
            return i + 1, losses, correct, waited

        nothing = tf.constant(0), tf.TensorArray(tf.float32, size=count), tf.constant(0.0), tf.constant(0.0, tf.float64)
        _, losses, correct, waited = tf.while_loop(lambda i, *_: i < count, run_step, nothing)
        return StepResults(losses.stack(), correct, waited)

    return run_steps


def replica_step(
    learner: Learner, settings: StepSettings, inputs: Mapping[int, Input]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Run one step on one replica.

    Returns:
        Its share of the loss, its number of correct examples, and the seconds that it waited for its batch.
    """
    # Each replica is traced separately, with its number as a constant: so it can pick its own iterator.
    number = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
    assert number is not None, "the number of a replica is a constant while it is traced"
    part, iterator = inputs[int(number)]
    requested = _clock(settings.deterministic)
    with tf.control_dependencies([requested]):
        step, images, labels = next(iterator)
    with tf.control_dependencies([labels]):
        waited = _clock(settings.deterministic) - requested
    if not is_identity(settings.augmentation):
        images = tf.cond(
            step < settings.augmented_steps,
            lambda: augment(images, labels, step, settings.augmentation, part),
            lambda: images,
        )
    gradients = functools.partial(loss_and_gradients, learner, part, settings.label_smoothing)
    if settings.jit_compile:
        gradients = tf.function(gradients, jit_compile=True, autograph=False)
    grads, loss, correct = gradients(Batch(step, images, labels))
    if part.replicas > 1 and isinstance(learner.optimizer, keras.optimizers.LossScaleOptimizer):
        grads = share_overflow(grads)
    learner.optimizer.apply(grads, learner.model.trainable_variables)
    return loss, correct, waited


def loss_and_gradients(
    learner: Learner, part: ReplicaSlice, label_smoothing: float, batch: Batch
) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
    """Return the gradients of the loss that the optimizer scales, the loss, and the number of correct examples.

    The sums over all replicas of gradients and losses are those of the mean over the global batch.
    """
    with tf.GradientTape() as tape:
        with dropout_noise(part, batch.step):
            logits = learner.model(batch.images, training=True)
        targets = tf.one_hot(batch.labels, logits.shape[-1], dtype=logits.dtype)
        if label_smoothing:
            targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
        loss = tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(targets, logits)) / part.global_batch_size
        scaled = learner.optimizer.scale_loss(loss)
    is_correct = tf.argmax(logits, axis=1, output_type=tf.int32) == tf.cast(batch.labels, tf.int32)
    correct = tf.reduce_sum(tf.cast(is_correct, tf.float32))
    return tape.gradient(scaled, learner.model.trainable_variables), loss, correct


def share_overflow(grads: list[tf.Tensor]) -> list[tf.Tensor]:
    """Make gradients infinite on all replicas if they are not finite on any.

    LossScaleOptimizer skips a step whose gradients are not finite, and takes for granted that all replicas have the same
    gradients. Ours are summed later. Without this, one replica's overflow turns the weights into NaN, and between
    workers one skips a collective that the others wait for.
    """
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(grad)) for grad in grads])
    context = tf.distribute.get_replica_context()
    overflows = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(tf.logical_not(finite), tf.float32))
    return [tf.where(overflows > 0, tf.constant(np.inf, grads[0].dtype), grads[0]), *grads[1:]]


def update_ema_weights(learner: Learner, decay: float) -> None:
    """Move the averages towards the weights.

    Early averages follow the weights closely: the decay is at most (1 + t) / (10 + t), as in
    tf.train.ExponentialMovingAverage.
    """
    t = tf.cast(learner.optimizer.iterations, tf.float32)
    keep = tf.minimum(decay, (1 + t) / (10 + t))
    for mean, weight in zip(learner.ema_weights, learner.model.weights, strict=True):
        mean.assign_sub(tf.cast(1 - keep, mean.dtype) * (mean - weight.value))


def _clock(deterministic: bool) -> tf.Tensor:
    # With op determinism TensorFlow refuses to read the time.
    return tf.constant(0.0, tf.float64) if deterministic else tf.timestamp()
