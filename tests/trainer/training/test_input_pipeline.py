import numpy as np
import tensorflow as tf

from trainer.training.augment import Affine, affine_noise, random_affine
from trainer.training.input_pipeline import batch_indices, replica_datasets


def test_each_epoch_shows_every_example_once_across_batch_borders() -> None:
    stream = batch_indices(seed=1, examples=100, global_batch_size=32, start_step=0, stop_step=10).ravel()
    for epoch in range(3):
        assert sorted(stream[epoch * 100 : epoch * 100 + 100]) == list(range(100))
    assert not np.array_equal(stream[:100], stream[100:200])


def test_a_step_sees_the_same_examples_wherever_the_run_was_started() -> None:
    whole = batch_indices(seed=1, examples=100, global_batch_size=32, start_step=0, stop_step=20)
    for start in (1, 3, 7, 19):
        assert np.array_equal(batch_indices(1, 100, 32, start, 20), whole[start:])
    assert not np.array_equal(batch_indices(2, 100, 32, 0, 20), whole)


def test_the_slices_of_the_replicas_make_up_the_global_batch(splits) -> None:
    def batches(replicas: int) -> list[tuple[np.ndarray, ...]]:
        datasets = replica_datasets(
            splits.train,
            seed=3,
            global_batch_size=24,
            start_step=5,
            stop_step=8,
            replicas=replicas,
            local_replicas=range(replicas),
            devices=["CPU:0"] * replicas,
        )
        steps = [list(dataset.as_numpy_iterator()) for dataset in datasets]
        return [
            (step[0][0], np.concatenate([part[1] for part in step]), np.concatenate([part[2] for part in step]))
            for step in zip(*steps, strict=True)
        ]

    order = batch_indices(3, len(splits.train), 24, 5, 8)
    for replicas in (1, 2, 3):
        for row, (step, images, labels) in enumerate(batches(replicas)):
            assert step == 5 + row
            assert np.array_equal(images, splits.train.images[order[row]])
            assert np.array_equal(labels, splits.train.labels[order[row]])


def test_augmentation_of_an_image_depends_only_on_seed_step_and_position(splits) -> None:
    ranges = Affine(rotate_degrees=15, zoom=0.2, shift_pixels=2, shear_degrees=10)
    images = tf.constant(splits.train.images[:8])
    whole = random_affine(images, affine_noise(1, tf.constant(4), 8), ranges).numpy()
    halves = [random_affine(images[i : i + 4], affine_noise(1, tf.constant(4), 8)[i : i + 4], ranges) for i in (0, 4)]
    assert np.array_equal(whole, np.concatenate(halves))
    assert whole.dtype == np.uint8
    for seed, step in ((2, 4), (1, 5)):
        assert not np.array_equal(whole, random_affine(images, affine_noise(seed, tf.constant(step), 8), ranges))


def test_augmentation_without_ranges_changes_nothing(splits) -> None:
    images = tf.constant(splits.train.images[:8])
    same = random_affine(images, affine_noise(0, tf.constant(0), 8), Affine())
    assert np.array_equal(same, images)


def test_each_range_moves_what_it_names() -> None:
    cross = np.zeros((1, 28, 28), np.uint8)
    cross[0, 13:15, 6:22] = cross[0, 6:22, 13:15] = 255
    noise = np.zeros((6, 1, 6), np.float32)
    np.fill_diagonal(noise[:, 0], 1.0)

    def extent(image: np.ndarray) -> tuple[int, int, int, int]:
        rows, columns = np.flatnonzero(image.max(axis=1) > 127), np.flatnonzero(image.max(axis=0) > 127)
        return rows[0], rows[-1], columns[0], columns[-1]

    def moved(part: int, **ranges: float) -> np.ndarray:
        return random_affine(tf.constant(cross), tf.constant(noise[part]), Affine(**ranges)).numpy()[0]

    assert extent(moved(4, shift_pixels=3)) == (6, 21, 3, 18)
    assert extent(moved(5, shift_pixels=3)) == (3, 18, 6, 21)
    top, bottom, left, right = extent(moved(2, zoom=0.25))
    assert (top, bottom) == (6, 21)
    assert right - left > 18
    turned = moved(0, rotate_degrees=45)
    assert turned[7, 7] < 10
    assert turned[8:11, 8:11].max() > 127, "the arms of a cross turned by 45 degrees lie on the diagonals"
    slanted = moved(1, shear_degrees=20)
    assert slanted[7].argmax() != slanted[20].argmax()
    assert extent(slanted)[0] == 6


def test_a_pen_makes_strokes_thicker_or_thinner_and_a_gap_takes_ink_away(splits) -> None:
    import tensorflow as tf

    from trainer.training.augment import random_strokes

    images = splits.train.images[:3]
    noise = tf.constant([[1.0, 0, 0, 1], [-1.0, 0, 0, 1], [0.0, 0, 0, -1]])
    changed = random_strokes(tf.constant(images), noise, pen=1.0, gaps=0.5).numpy()
    assert (changed[0] >= images[0]).all()
    assert (changed[1] <= images[1]).all()
    assert changed[0].sum() > 1.1 * images[0].sum()
    assert changed[1].sum() < 0.9 * images[1].sum()
    assert not changed[2, 13:15, 13:15].any()
    assert np.array_equal(changed[2, :8], images[2, :8])
    assert np.array_equal(random_strokes(tf.constant(images), noise, pen=0.0, gaps=0.0), images)


def test_some_ones_get_a_flag_and_a_foot_and_no_other_digit_does() -> None:
    import tensorflow as tf

    from trainer.training.augment import random_flags

    one = np.zeros((28, 28), np.uint8)
    one[4:24, 14:17] = 255
    noise = tf.constant([[0.0, 0.5, 1.0, 0.9], [0.0, 0.5, 1.0, 0.0], [0.9, 0.5, 1.0, 0.0], [0.0, 0.5, 1.0, 0.0]])
    labels = tf.constant([1, 1, 1, 7], tf.uint8)
    flagged = tf.function(random_flags)(tf.constant(np.stack([one] * 4)), labels, noise, 0.5)
    flag, both, left_alone, seven = flagged.numpy()
    assert np.array_equal(left_alone, one)
    assert np.array_equal(seven, one)
    assert (flag >= one).all()
    new = flag.astype(int) - one
    assert new[:14, :14].sum() > 10 * 255, "the flag hangs to the left of the upper half"
    assert not new[14:].any()
    assert not new[:, 18:].any()
    foot = both.astype(int) - flag
    assert not foot[:20].any()
    assert foot[20:24, :14].sum() > 5 * 255
    assert foot[20:24, 17:].sum() > 5 * 255


def test_some_digits_are_shown_coarsely_with_their_ink_where_it_was(splits) -> None:
    import tensorflow as tf

    from trainer.training.augment import coarse_noise, random_coarse

    images = splits.train.images[:64]
    noise = coarse_noise(0, tf.constant(3), 64)
    changed = random_coarse(tf.constant(images), noise, 0.5).numpy()
    same = (changed == images).all(axis=(1, 2))
    assert np.array_equal(same, noise[:, 0] >= 0.5)
    for before, after in zip(images[~same], changed[~same], strict=True):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.6
        assert after.max() > 150
