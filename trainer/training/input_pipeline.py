"""The order of batches as a function of (seed, step), and one ordinary tf.data iterator per replica.

The stream of examples is one permutation of the training split after another; step s takes the s-th `global_batch_size`
of them, and replica r of R the r-th of R equal slices of that. So what a step sees depends neither on the number of
replicas nor on where a run was started again, and no example is dropped at an epoch's end.

`strategy.experimental_distribute_dataset` fixes neither, and costs about a millisecond per step under MirroredStrategy on
CPUs (benchmarks/input_path.py), which is why each replica reads an iterator of its own inside the replica function.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.data.split import Split


def batch_indices(seed: int, examples: int, global_batch_size: int, start_step: int, stop_step: int) -> np.ndarray:
    """Positions in the training split of the examples of each step: int32 [stop_step - start_step, global_batch_size]."""
    first, last = start_step * global_batch_size, stop_step * global_batch_size
    epochs = range(first // examples, -(-last // examples))
    order = [_permutation(seed, epoch, examples) for epoch in epochs]
    stream = np.concatenate(order) if order else np.empty(0, np.int32)
    offset = epochs.start * examples
    return stream[first - offset : last - offset].reshape(-1, global_batch_size)


def replica_datasets(
    split: Split,
    *,
    seed: int,
    global_batch_size: int,
    start_step: int,
    stop_step: int,
    replicas: int,
    local_replicas: Sequence[int],
    devices: Sequence[str],
) -> list[tf.data.Dataset]:
    """One dataset per local replica; element s is (step int64, images uint8 [B/R, 28, 28], labels uint8 [B/R]).

    Args:
        replicas: R, over all workers.
        local_replicas: the numbers, among R, of the replicas that this process runs.
        devices: where each local replica computes; on a GPU its dataset ends in a prefetch to that GPU.
    """
    order = batch_indices(seed, len(split), global_batch_size, start_step, stop_step)
    size = global_batch_size // replicas
    with tf.device("CPU:0"):
        images, labels = tf.constant(split.images), tf.constant(split.labels)
        steps = np.arange(start_step, stop_step, dtype=np.int64)
        datasets = []
        for replica, device in zip(local_replicas, devices, strict=True):
            mine = np.ascontiguousarray(order[:, replica * size : (replica + 1) * size])
            dataset = tf.data.Dataset.from_tensor_slices((steps, mine)).map(
                lambda step, positions: (step, tf.gather(images, positions), tf.gather(labels, positions))
            )
            on_gpu = "GPU" in device.upper()
            datasets.append(
                dataset.apply(tf.data.experimental.prefetch_to_device(device))
                if on_gpu
                else dataset.prefetch(tf.data.AUTOTUNE)
            )
    return datasets


def _permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    # Philox takes its whole state from the key, so any epoch's order is there without those before it.
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(examples).astype(np.int32)
