"""The order of batches as a function of (seed, step), and one ordinary tf.data iterator per replica.

The stream of examples is one permutation of the training split after another. Step s takes the s-th `global_batch_size`
of them, and replica r of R takes every R-th of those, from the r-th on. So the examples of a step depend neither on the
number of replicas nor on where a run was resumed, and no example is dropped at the end of an epoch.

`strategy.experimental_distribute_dataset` guarantees neither, and costs about a millisecond per step under
MirroredStrategy on CPUs (benchmarks/input_path.py). So each replica reads its own iterator inside the replica function.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainer.data.split import Split, aligned

PREFETCHED_BATCHES = 2
"""Ready before they are needed: gathering a batch takes a hundredth of a step."""


def batch_indices(seed: int, examples: int, global_batch_size: int, start_step: int, stop_step: int) -> np.ndarray:
    """Return the positions in the training split of each step's examples: int32 [steps, global_batch_size]."""
    first, last = start_step * global_batch_size, stop_step * global_batch_size
    epochs = range(first // examples, -(-last // examples))
    order = [_permutation(seed, epoch, examples) for epoch in epochs]
    stream = np.concatenate(order) if order else np.empty(0, np.int32)
    offset = epochs.start * examples
    return stream[first - offset : last - offset].reshape(-1, global_batch_size)


@dataclass(frozen=True)
class ReplicaSlice:
    """The part of each global batch that one replica takes."""

    seed: int
    """Decides, with the step and the position in the global batch, which example it is and its noise."""
    global_batch_size: int
    replica: int = 0
    """Number of the replica, over all workers."""
    replicas: int = 1
    """How many there are, over all workers."""

    @property
    def positions(self) -> slice:
        """The slice's positions in the global batch: every R-th, so that all replicas get the same share of any range."""
        return slice(self.replica, None, self.replicas)

    def uniform(self, stream: int, step: tf.Tensor, values: int) -> tf.Tensor:
        """Return noise for each example of the slice: a function of the seed, stream, step and the example's position.

        Args:
            stream: a number for each use, so that no two uses get the same noise.
            step: number of the training step.
            values: how many values each example gets.

        Returns:
            float32 [B/R, values], uniform in [0, 1).
        """
        return uniform(self.seed, stream, step, [self.global_batch_size, values])[self.positions]


def uniform(seed: int, stream: int, step: tf.Tensor, shape: list[int]) -> tf.Tensor:
    """Return float32 of that shape, uniform in [0, 1): a function of the seed (below 2**32), stream and step."""
    key = tf.stack([tf.constant(seed + stream * 2**32, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_uniform(shape, seed=key)


def replica_datasets(
    split: Split, steps: range, parts: Sequence[ReplicaSlice], devices: Sequence[str]
) -> list[tf.data.Dataset]:
    """Return one dataset per local replica; its elements are (step int64, images uint8 [B/R, 28, 28], labels uint8 [B/R]).

    Args:
        split: the examples, N of them.
        steps: the steps whose batches the datasets yield.
        parts: the slice of the global batch that each local replica takes.
        devices: where each local replica computes; on a GPU its dataset ends in a prefetch to that GPU.
    """
    order = batch_indices(parts[0].seed, len(split), parts[0].global_batch_size, steps.start, steps.stop)
    with tf.device("CPU:0"):
        # `tf.constant` would copy the images twice.
        images = tf.experimental.dlpack.from_dlpack(aligned(split.images).__dlpack__())
        labels = tf.constant(split.labels)
        datasets = []
        for part, device in zip(parts, devices, strict=True):
            indices = np.ascontiguousarray(order[:, part.positions])
            dataset = tf.data.Dataset.from_tensor_slices((np.array(steps, np.int64), indices)).map(
                lambda step, positions: (step, tf.gather(images, positions), tf.gather(labels, positions))
            )
            on_gpu = "GPU" in device.upper()
            datasets.append(
                dataset.apply(tf.data.experimental.prefetch_to_device(device))
                if on_gpu
                else dataset.prefetch(PREFETCHED_BATCHES)
            )
    options = tf.data.Options()
    # The autotuner's thread sometimes misses that its iterator is deleted: the process then ends up to a minute late.
    options.autotune.enabled = False
    # Rewriting the graph of a dataset copies the images that it captures, and this one is as simple as it can be.
    options.experimental_optimization.apply_default_optimizations = False
    return [dataset.with_options(options) for dataset in datasets]


def _permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    # Philox takes its whole state from the key, so the order of an epoch is computed without the earlier ones.
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(examples).astype(np.int32)
