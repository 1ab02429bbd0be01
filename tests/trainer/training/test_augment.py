"""The augmentation: each change does what its setting says, and its noise depends on seed, step and position only."""

import numpy as np
import tensorflow as tf

from trainer.settings import AugmentationSettings
from trainer.training.augment import add_serifs, augment, change_strokes, is_identity, random_affine, reduce_resolution
from trainer.training.input_pipeline import ReplicaSlice

ALL = AugmentationSettings(
    rotate_degrees=15.0,
    zoom=0.2,
    shift_pixels=2.0,
    shear_degrees=10.0,
    stroke_width_jitter_pixels=0.8,
    stroke_gap_fraction=0.2,
    serif_ones_fraction=0.5,
    low_resolution_fraction=0.4,
)


def augmented(splits, settings: AugmentationSettings, *, seed: int = 1, step: int = 4, part=(0, 1)) -> np.ndarray:
    part = ReplicaSlice(seed, 32, *part)
    images, labels = splits.train.images[:32][part.positions], splits.train.labels[:32][part.positions]
    return augment(tf.constant(images), tf.constant(labels), tf.constant(step), settings, part).numpy()


def test_augmentation_of_an_image_depends_only_on_seed_step_and_position(splits) -> None:
    complete = augmented(splits, ALL)
    for replicas in (2, 4):
        merged = np.empty_like(complete)
        for replica in range(replicas):
            merged[ReplicaSlice(1, 32, replica, replicas).positions] = augmented(splits, ALL, part=(replica, replicas))
        assert np.array_equal(complete, merged)
    assert complete.dtype == np.uint8
    assert not np.array_equal(complete, augmented(splits, ALL, seed=2))
    assert not np.array_equal(complete, augmented(splits, ALL, step=5))


def test_augmentation_without_settings_changes_nothing(splits) -> None:
    none = AugmentationSettings()
    assert is_identity(none)
    assert np.array_equal(augmented(splits, none), splits.train.images[:32])
    images = tf.constant(splits.train.images[:8])
    assert np.array_equal(random_affine(images, tf.ones([8, 6]), none), images)
    assert np.array_equal(change_strokes(images, -tf.ones([8, 4]), none), images)


def test_every_change_can_be_switched_on_alone(splits) -> None:
    for name in ("zoom", "stroke_width_jitter_pixels", "serif_ones_fraction", "low_resolution_fraction"):
        settings = AugmentationSettings(**{name: 0.9})
        assert not is_identity(settings)
        assert not np.array_equal(augmented(splits, settings), splits.train.images[:32])


def test_each_range_moves_what_it_names() -> None:
    cross = np.zeros((1, 28, 28), np.uint8)
    cross[0, 13:15, 6:22] = cross[0, 6:22, 13:15] = 255
    noise = np.zeros((6, 1, 6), np.float32)
    np.fill_diagonal(noise[:, 0], 1.0)

    def extent(image: np.ndarray) -> tuple[int, int, int, int]:
        rows, columns = np.flatnonzero(image.max(axis=1) > 127), np.flatnonzero(image.max(axis=0) > 127)
        return rows[0], rows[-1], columns[0], columns[-1]

    def moved(part: int, **ranges: float) -> np.ndarray:
        return random_affine(tf.constant(cross), tf.constant(noise[part]), AugmentationSettings(**ranges)).numpy()[0]

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


def test_jitter_makes_strokes_thicker_or_thinner_and_a_gap_removes_ink(splits) -> None:
    images = splits.train.images[:3]
    noise = tf.constant([[1.0, 0, 0, 1], [-1.0, 0, 0, 1], [0.0, 0, 0, -1]])
    settings = AugmentationSettings(stroke_width_jitter_pixels=1.0, stroke_gap_fraction=0.5)
    changed = change_strokes(tf.constant(images), noise, settings).numpy()
    assert (changed[0] >= images[0]).all()
    assert (changed[1] <= images[1]).all()
    assert changed[0].sum() > 1.1 * images[0].sum()
    assert changed[1].sum() < 0.9 * images[1].sum()
    assert not changed[2, 13:15, 13:15].any()
    assert np.array_equal(changed[2, :8], images[2, :8])


def test_some_ones_get_an_upstroke_and_a_foot_and_other_digits_do_not() -> None:
    one = np.zeros((28, 28), np.uint8)
    one[4:24, 14:17] = 255
    noise = tf.constant([[0.0, 0.5, 1.0, 0.9], [0.0, 0.5, 1.0, 0.0], [0.9, 0.5, 1.0, 0.0], [0.0, 0.5, 1.0, 0.0]])
    labels = tf.constant([1, 1, 1, 7], tf.uint8)
    changed = tf.function(add_serifs)(tf.constant(np.stack([one] * 4)), labels, noise, 0.5)
    upstroke, both, left_alone, seven = changed.numpy()
    assert np.array_equal(left_alone, one)
    assert np.array_equal(seven, one)
    assert (upstroke >= one).all()
    new = upstroke.astype(int) - one
    assert new[:14, :14].sum() > 10 * 255, "the upstroke lies to the left of the upper half"
    assert not new[14:].any()
    assert not new[:, 18:].any()
    foot = both.astype(int) - upstroke
    assert not foot[:20].any()
    assert foot[20:24, :14].sum() > 5 * 255
    assert foot[20:24, 17:].sum() > 5 * 255


def test_low_resolution_keeps_the_ink_of_a_digit_in_its_place(splits) -> None:
    images = splits.train.images[:64]
    noise = tf.random.stateless_uniform([64, 6], seed=[0, 3])
    changed = reduce_resolution(tf.constant(images), noise, 0.5).numpy()
    same = (changed == images).all(axis=(1, 2))
    assert np.array_equal(same, noise[:, 0] >= 0.5)
    for before, after in zip(images[~same], changed[~same], strict=True):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.6
        assert after.max() > 150
