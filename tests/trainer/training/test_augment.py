"""The augmentation: each change does what its setting says, and its noise depends on seed, step and position only."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.settings import AugmentationSettings
from trainer.training.augment import (
    add_gaps,
    add_serifs,
    affine_maps,
    augment,
    elastic_displacements,
    group_size,
    is_identity,
    mapped_points,
    move_edges,
    reduce_resolution,
    warp,
)
from trainer.training.input_pipeline import ReplicaSlice

ALL = AugmentationSettings(
    rotate_degrees=15.0,
    zoom=0.2,
    shift_pixels=2.0,
    shear_degrees=10.0,
    elastic_pixels=0.8,
    stroke_width_jitter_pixels=0.8,
    stroke_gap_fraction=0.2,
    serif_ones_fraction=0.5,
    low_resolution_fraction=0.4,
)
BATCH = 96


def augmented(splits, settings: AugmentationSettings, *, seed: int = 1, step: int = 4, part=(0, 1)) -> np.ndarray:
    part = ReplicaSlice(seed, BATCH, *part)
    images, labels = splits.train.images[:BATCH][part.positions], splits.train.labels[:BATCH][part.positions]
    return augment(tf.constant(images), tf.constant(labels), tf.constant(step), settings, part).numpy()


def stacks_of(images: np.ndarray) -> tf.Tensor:
    """The images as one group: float32 [1, 28, 28, N]."""
    return tf.cast(tf.transpose(images, [1, 2, 0]), tf.float32)[tf.newaxis]


def images_of(stacks: tf.Tensor) -> np.ndarray:
    return np.transpose(stacks, [0, 3, 1, 2]).reshape(-1, 28, 28)


@pytest.mark.parametrize("replicas", [2, 3, 4, 32])
def test_augmentation_of_an_image_depends_only_on_seed_step_and_position(splits, replicas: int) -> None:
    complete = augmented(splits, ALL)
    merged = np.empty_like(complete)
    for replica in range(replicas):
        merged[ReplicaSlice(1, BATCH, replica, replicas).positions] = augmented(splits, ALL, part=(replica, replicas))
    assert np.array_equal(complete, merged)


def test_other_seeds_and_steps_have_other_augmentation(splits) -> None:
    complete = augmented(splits, ALL)
    assert complete.dtype == np.uint8
    assert not np.array_equal(complete, augmented(splits, ALL, seed=2))
    assert not np.array_equal(complete, augmented(splits, ALL, step=5))


def test_augmentation_without_settings_changes_nothing(splits) -> None:
    assert is_identity(AugmentationSettings())
    assert np.array_equal(augmented(splits, AugmentationSettings()), splits.train.images[:BATCH])


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("elastic_pixels", 1.0),
        ("stroke_width_jitter_pixels", 1.0),
        ("stroke_gap_fraction", 0.5),
        ("low_resolution_fraction", 0.5),
    ],
)
def test_every_change_can_be_switched_on_alone(splits, name: str, share: float) -> None:
    settings = AugmentationSettings(**{name: 0.5})
    assert not is_identity(settings)
    changed = np.mean(
        [
            (augmented(splits, settings, step=step) != splits.train.images[:BATCH]).any(axis=(1, 2)).mean()
            for step in range(20)
        ]
    )
    assert changed == pytest.approx(share, abs=0.07)


def test_the_first_groups_get_low_resolution_and_the_others_another_stroke_width(splits) -> None:
    settings = AugmentationSettings(low_resolution_fraction=0.5, stroke_width_jitter_pixels=0.8)
    images = splits.train.images[:BATCH].astype(int)
    low, thicker, thinner = np.split(augmented(splits, settings) - images, [BATCH // 2, 3 * BATCH // 4])
    assert low.any(axis=(1, 2)).all()
    assert (thicker >= 0).all()
    assert thicker.sum() > 0.1 * images.sum() / 4
    assert (thinner <= 0).all()
    assert thinner.sum() < -0.1 * images.sum() / 4


def test_both_ways_to_warp_agree(splits, monkeypatch) -> None:
    images = tf.constant(splits.train.images[:32])
    points = mapped_points(affine_maps(tf.random.stateless_uniform([8, 6], [0, 1], -1, 1), ALL))
    points += elastic_displacements(tf.random.stateless_uniform([8, 2, 49], [0, 2], -1, 1), 1.0)
    on_cpu = images_of(warp(images, points))
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: ["GPU:0"])
    np.testing.assert_allclose(on_cpu, images_of(warp(images, points)), atol=0.01)


def test_an_affine_map_agrees_with_tensorflows_kernel(splits) -> None:
    maps = affine_maps(tf.random.stateless_uniform([8, 6], [0, 1], -1, 1), ALL)
    expected = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(splits.train.images[:16], tf.float32)[..., tf.newaxis],
        transforms=tf.pad(tf.repeat(maps, 2, axis=0), [[0, 0], [0, 2]]),
        output_shape=[28, 28],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    warped = warp(tf.constant(splits.train.images[:16]), mapped_points(maps))
    np.testing.assert_allclose(images_of(warped), expected[..., 0], atol=0.01)


def test_a_deformation_is_smooth_and_as_large_as_its_setting() -> None:
    noise = tf.random.stateless_uniform([500, 2, 49], [0, 1], -1, 1)
    moved = elastic_displacements(noise, 0.8).numpy().reshape(500, 2, 28, 28)
    assert moved.std() == pytest.approx(0.8, rel=0.05)
    assert np.abs(moved.mean(axis=0)).max() < 0.2, "no pixel moves in a preferred direction"
    assert np.diff(moved, axis=2).std() < 0.3 * moved.std(), "neighbouring pixels move together"
    assert elastic_displacements(tf.ones([1, 2, 49]), 0.8).numpy().std() < 1e-5, (
        "equal control points only shift the image"
    )


def test_groups_have_equal_sizes_and_are_16_or_more() -> None:
    sizes = {48: 3, 64: 4, 100: 5, 128: 8, 256: 16, 512: 16, 1000: 10, 10: 1, 31: 1}
    assert {batch: group_size(batch) for batch in sizes} == sizes


def test_each_range_moves_what_it_names() -> None:
    cross = np.zeros((1, 28, 28), np.uint8)
    cross[0, 13:15, 6:22] = cross[0, 6:22, 13:15] = 255
    noise = np.zeros((6, 1, 6), np.float32)
    np.fill_diagonal(noise[:, 0], 1.0)

    def extent(image: np.ndarray) -> tuple[int, int, int, int]:
        rows, columns = np.flatnonzero(image.max(axis=1) > 127), np.flatnonzero(image.max(axis=0) > 127)
        return rows[0], rows[-1], columns[0], columns[-1]

    def moved(part: int, **ranges: float) -> np.ndarray:
        points = mapped_points(affine_maps(tf.constant(noise[part]), AugmentationSettings(**ranges)))
        return images_of(warp(tf.constant(np.repeat(cross, 2, axis=0)), points))[1]

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


def test_moved_edges_make_strokes_thicker_or_thinner(splits) -> None:
    images = splits.train.images[:3]
    pixels = tf.constant([1.0, 0.5, 0.0], shape=[1, 1, 1, 3])
    thicker = images_of(move_edges(stacks_of(images), pixels, tf.maximum))
    thinner = images_of(move_edges(stacks_of(images), pixels, tf.minimum))
    assert (thicker >= images).all()
    assert (thinner <= images).all()
    assert thicker[0].sum() > 1.1 * images[0].sum()
    assert thinner[0].sum() < 0.9 * images[0].sum()
    assert np.array_equal(thicker[2], images[2])
    assert np.array_equal(thinner[2], images[2])


def test_a_gap_removes_ink_in_its_place_from_its_share_of_the_digits(splits) -> None:
    images = splits.train.images[:2]
    changed = add_gaps(tf.constant(images), tf.constant([[0.4, 0.5, 0.5], [0.6, 0.5, 0.5]]), 0.5).numpy()
    assert not changed[0, 13:15, 13:15].any()
    assert np.array_equal(changed[0, :8], images[0, :8])
    assert np.array_equal(changed[1], images[1])


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
    grids = tf.random.stateless_uniform([8, 3], seed=[0, 3])
    contrast = tf.random.stateless_uniform([2, 8, 1, 1, 8], seed=[0, 4])
    stacks = tf.transpose(tf.reshape(tf.cast(images, tf.float32), [8, 8, 28, 28]), [0, 2, 3, 1])
    changed = images_of(reduce_resolution(stacks, grids, contrast))
    assert changed.min() >= 0
    assert changed.max() <= 255
    for before, after in zip(images, changed, strict=True):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.6
        assert after.max() > 150
