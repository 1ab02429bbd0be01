"""The order of batches, and each replica's slice of them."""

import os
from pathlib import Path

import numpy as np
import pytest

from trainer.data.split import Split, aligned
from trainer.training.input_pipeline import ReplicaSlice, batch_indices, replica_datasets


def test_each_epoch_contains_every_example_once_across_batch_borders() -> None:
    stream = batch_indices(seed=1, examples=100, global_batch_size=32, start_step=0, stop_step=10).ravel()
    for epoch in range(3):
        assert sorted(stream[epoch * 100 : epoch * 100 + 100]) == list(range(100))
    assert not np.array_equal(stream[:100], stream[100:200])


def test_a_step_has_the_same_examples_wherever_the_run_was_resumed() -> None:
    whole = batch_indices(seed=1, examples=100, global_batch_size=32, start_step=0, stop_step=20)
    for start in (1, 3, 7, 19):
        assert np.array_equal(batch_indices(1, 100, 32, start, 20), whole[start:])
    assert not np.array_equal(batch_indices(2, 100, 32, 0, 20), whole)


def test_the_slices_of_all_replicas_are_the_global_batch(splits) -> None:
    order = batch_indices(3, len(splits.train), 24, 5, 8)
    for replicas in (1, 2, 3):
        parts = [ReplicaSlice(3, 24, replica, replicas) for replica in range(replicas)]
        datasets = replica_datasets(splits.train, range(5, 8), parts, ["CPU:0"] * replicas)
        for part, dataset in zip(parts, datasets, strict=True):
            batches = list(dataset.as_numpy_iterator())
            assert [step for step, _, _ in batches] == [5, 6, 7]
            for (_, images, labels), indices in zip(batches, order, strict=True):
                assert np.array_equal(images, splits.train.images[indices[part.positions]])
                assert np.array_equal(labels, splits.train.labels[indices[part.positions]])
        assert sorted(np.concatenate([np.arange(24)[part.positions] for part in parts])) == list(range(24))


def test_no_thread_of_the_autotuner_delays_the_end_of_the_process(splits) -> None:
    """TensorFlow 2.21: deleting an iterator waits for that thread, which sometimes sleeps for another minute."""
    [dataset] = replica_datasets(splits.train, range(3), [ReplicaSlice(3, 24)], ["CPU:0"])
    assert dataset.options().autotune.enabled is False


def test_the_datasets_hold_no_copy_of_the_images() -> None:
    images = aligned(np.ones((250_000, 28, 28), np.uint8))
    split = Split(images, np.zeros(len(images), np.uint8))
    before = resident_bytes()
    [dataset] = replica_datasets(split, range(100), [ReplicaSlice(3, 256)], ["CPU:0"])
    for _, batch, _ in dataset:
        assert batch.shape == (256, 28, 28)
    assert resident_bytes() - before < images.nbytes / 2


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("offset", [0, 1, 16])
def test_aligned_images_are_the_same_and_are_copied_only_where_tensorflow_needs_it(offset: int) -> None:
    base = aligned(np.arange(2 * 28 * 28 + offset, dtype=np.uint32).astype(np.uint8))
    images = base[offset:].reshape(2, 28, 28)
    result = aligned(images)
    assert np.array_equal(result, images)
    assert result.ctypes.data % 64 == 0
    assert np.shares_memory(result, images) == (offset == 0)
    images.flags.writeable = False
    assert aligned(images).flags.writeable
