"""The compiled step: each replica takes its slice of the global batch from its own iterator, augments it on its device and
adds its share of the gradient; many steps run per call, without Python between them."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from trainer.config import TrainConfig
from trainer.data.split import Split
from trainer.training.augment import (
    Affine,
    affine_noise,
    coarse_noise,
    flag_noise,
    random_affine,
    random_coarse,
    random_flags,
    random_strokes,
    stroke_noise,
)
from trainer.training.distribute import Devices
from trainer.training.input_pipeline import replica_datasets


def compile_steps(
    config: TrainConfig,
    start_step: int,
    steps: int,
    split: Split,
    devices: Devices,
    model: keras.Model,
    optimizer: keras.Optimizer,
    average: Sequence[tf.Variable],
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """The compiled function that runs the next n steps, the first time from `start_step` on, and returns their losses [n],
    the number of right answers, and the seconds that the first replica waited for input."""
    strategy, replicas = devices.strategy, devices.replicas
    size = config.global_batch_size // replicas
    ranges = Affine(
        rotate_degrees=config.rotate_degrees,
        zoom=config.zoom,
        shift_pixels=config.shift_pixels,
        shear_degrees=config.shear_degrees,
    )
    clean_from = steps - round(config.unaugmented_epochs * len(split) / config.global_batch_size)
    iterators = [
        iter(dataset)
        for dataset in replica_datasets(
            split,
            seed=config.seed,
            global_batch_size=config.global_batch_size,
            start_step=start_step,
            stop_step=steps,
            replicas=replicas,
            local_replicas=range(devices.first_replica, devices.first_replica + len(devices.names)),
            devices=devices.names,
        )
    ]

    def augmented(images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, replica: int) -> tf.Tensor:
        mine = slice(replica * size, (replica + 1) * size)
        strokes = config.stroke_width_jitter_pixels or config.stroke_gap_fraction
        if ranges.is_identity and not (strokes or config.serif_ones_fraction or config.low_resolution_fraction):
            return images

        def noise(of: Callable[[int, tf.Tensor, int], tf.Tensor]) -> tf.Tensor:
            return of(config.seed, step, config.global_batch_size)[mine]

        def transform() -> tf.Tensor:
            changed = images
            if config.serif_ones_fraction:
                changed = random_flags(changed, labels, noise(flag_noise), config.serif_ones_fraction)
            if strokes:
                changed = random_strokes(
                    changed, noise(stroke_noise), pen=config.stroke_width_jitter_pixels, gaps=config.stroke_gap_fraction
                )
            if not ranges.is_identity:
                changed = random_affine(changed, noise(affine_noise), ranges)
            if config.low_resolution_fraction:
                changed = random_coarse(changed, noise(coarse_noise), config.low_resolution_fraction)
            return changed

        return tf.cond(step < clean_from, transform, lambda: images)

    def gradients(images: tf.Tensor, labels: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            targets = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
            if config.label_smoothing:
                targets = targets * (1 - config.label_smoothing) + config.label_smoothing / logits.shape[-1]
            # The sum over replicas of these is the mean over the global batch.
            loss = tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(targets, logits)) / config.global_batch_size
            scaled = optimizer.scale_loss(loss)
        correct = tf.reduce_sum(
            tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == tf.cast(labels, tf.int32), tf.int32)
        )
        return tape.gradient(scaled, model.trainable_variables), loss, correct

    def clock() -> tf.Tensor:
        # TensorFlow counts the time among the things that a deterministic program must not ask for.
        return tf.constant(0.0, tf.float64) if config.deterministic else tf.timestamp()

    if config.jit_compile:
        gradients = tf.function(gradients, jit_compile=True)

    def replica_step() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # Each replica is traced on its own, with its number as a constant: that lets it pick its own iterator.
        number = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
        assert number is not None, "the number of a replica is a constant while it is traced"
        replica = int(number)
        asked = clock()
        with tf.control_dependencies([asked]):
            step, images, labels = next(iterators[replica - devices.first_replica])
        with tf.control_dependencies([labels]):
            waited = clock() - asked
        grads, loss, correct = gradients(augmented(images, labels, step, replica), labels)
        optimizer.apply(grads, model.trainable_variables)
        return loss, correct, waited

    def update_average() -> None:
        # Early averages follow the weights closely: (1 + t) / (10 + t), as in tf.train.ExponentialMovingAverage.
        t = tf.cast(optimizer.iterations, tf.float32)
        keep = tf.minimum(config.ema_decay, (1 + t) / (10 + t))
        for mean, weight in zip(average, model.weights, strict=True):
            mean.assign_sub(tf.cast(1 - keep, mean.dtype) * (mean - weight.value))

    @tf.function
    def run_steps(count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        losses = tf.TensorArray(tf.float32, size=count)
        correct, waited = tf.constant(0), tf.constant(0.0, tf.float64)
        for i in tf.range(count):
            loss, right, wait = strategy.run(replica_step)
            losses = losses.write(i, tf.cast(strategy.reduce("SUM", loss, axis=None), tf.float32))
            correct += strategy.reduce("SUM", right, axis=None)
            waited += strategy.experimental_local_results(wait)[0]
            if average:
                update_average()
        return losses.stack(), correct, waited

    return run_steps
