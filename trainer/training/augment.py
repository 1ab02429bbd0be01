"""Training-only augmentation of whole batches, on the training device.

Four changes, each with settings of its own: serifs on ones, stroke width and gaps, a random affine map, and low
resolution. The noise of an image is a function of (seed, step, position in the global batch), so it depends neither on
the number of replicas nor on where a run was resumed.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from trainer.config import TrainConfig
from trainer.data.split import Split
from trainer.settings import AugmentationSettings
from trainer.training.input_pipeline import ReplicaSlice, batch_indices


def augment(
    images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, settings: AugmentationSettings, part: ReplicaSlice
) -> tf.Tensor:
    """Change the images of one step in every way that the settings switch on.

    Args:
        images: uint8 [B, 28, 28], 0 = paper, 255 = ink.
        labels: uint8 [B].
        step: number of the training step; with the seed and each image's position it decides the noise.
        settings: which changes, and how strong.
        part: the seed, and which part of the global batch these B images are.

    Returns:
        uint8 [B, 28, 28].
    """
    if settings.serif_ones_fraction:
        images = add_serifs(images, labels, part.uniform(3, step, 4), settings.serif_ones_fraction)
    if has_strokes(settings):
        images = change_strokes(images, 2 * part.uniform(1, step, 4) - 1, settings)
    if has_affine(settings):
        images = random_affine(images, 2 * part.uniform(0, step, 6) - 1, settings)
    if settings.low_resolution_fraction:
        images = reduce_resolution(images, part.uniform(2, step, 6), settings.low_resolution_fraction)
    return images


def first_batch(split: Split, config: TrainConfig) -> np.ndarray:
    """The images of a run's first step as the model sees them: uint8 [B, 28, 28]."""
    positions = batch_indices(config.seed, len(split), config.global_batch_size, 0, 1)[0]
    images, labels = tf.constant(split.images[positions]), tf.constant(split.labels[positions])
    if config.unaugmented_epochs >= config.epochs:
        return images.numpy()
    part = ReplicaSlice(config.seed, config.global_batch_size)
    return augment(images, labels, tf.constant(0, tf.int64), config, part).numpy()


def is_identity(settings: AugmentationSettings) -> bool:
    """Whether the settings switch on no change."""
    others = settings.serif_ones_fraction or settings.low_resolution_fraction
    return not (has_affine(settings) or has_strokes(settings) or others)


def has_affine(settings: AugmentationSettings) -> bool:
    """Whether images are rotated, zoomed, shifted or sheared."""
    return bool(settings.rotate_degrees or settings.zoom or settings.shift_pixels or settings.shear_degrees)


def has_strokes(settings: AugmentationSettings) -> bool:
    """Whether strokes change their width or get gaps."""
    return bool(settings.stroke_width_jitter_pixels or settings.stroke_gap_fraction)


def random_affine(images: tf.Tensor, noise: tf.Tensor, ranges: AugmentationSettings) -> tf.Tensor:
    """Rotate, shear, zoom and shift each image around its centre.

    Args:
        images: uint8 [B, 28, 28].
        noise: float32 [B, 6], uniform in [-1, 1).
        ranges: each part of the map is drawn within +- its setting.

    Returns:
        uint8 [B, 28, 28]; pixels that come in from outside are paper (0).
    """
    angle = noise[:, 0] * math.radians(ranges.rotate_degrees)
    slant = tf.tan(noise[:, 1] * math.radians(ranges.shear_degrees))
    scale_x, scale_y = 1 + noise[:, 2] * ranges.zoom, 1 + noise[:, 3] * ranges.zoom
    cos, sin = tf.cos(angle), tf.sin(angle)
    # Output pixel -> input pixel, around the centre c: input = M (output - c) + c + shift, M = rotation x shear x scale.
    a, b = cos / scale_x, (cos * slant - sin) / scale_y
    d, e = sin / scale_x, (sin * slant + cos) / scale_y
    centre = (images.shape[1] - 1) / 2
    c = centre - (a + b) * centre + noise[:, 4] * ranges.shift_pixels
    f = centre - (d + e) * centre + noise[:, 5] * ranges.shift_pixels
    zeros = tf.zeros_like(a)
    transformed = tf.raw_ops.ImageProjectiveTransformV3(
        images=images[..., tf.newaxis],
        transforms=tf.stack([a, b, c, d, e, f, zeros, zeros], axis=1),
        output_shape=tf.constant(images.shape[1:].as_list(), tf.int32),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return transformed[..., 0]


def add_serifs(images: tf.Tensor, labels: tf.Tensor, noise: tf.Tensor, fraction: float) -> tf.Tensor:
    """Add an upstroke to the top of some ones, and a foot to half of those: common handwriting that MNIST hardly contains.

    Args:
        images: uint8 [B, 28, 28].
        labels: [B]; only ones are changed.
        noise: float32 [B, 4], uniform in [0, 1).
        fraction: how many of the ones are changed.

    Returns:
        uint8 [B, 28, 28].
    """
    ink = tf.cast(images, tf.float32)
    rows = tf.range(images.shape[1])
    inked = tf.reduce_max(images, axis=2) > 127
    top = tf.reduce_min(tf.where(inked, rows, rows[-1]), axis=1)
    bottom = tf.reduce_max(tf.where(inked, rows, 0), axis=1)
    height = tf.cast(bottom - top + 1, tf.float32)
    # The area of a single stroke over its height is its width.
    width = tf.clip_by_value(tf.reduce_sum(ink, axis=[1, 2]) / (255 * height), 1.0, 5.0)

    def end(row: tf.Tensor, inwards: float) -> tuple[tf.Tensor, tf.Tensor]:
        """Middle of the stroke, (y, x), half a stroke width inwards from its end."""
        values = tf.gather(ink, row, batch_dims=1)
        x = tf.reduce_sum(values * tf.cast(rows, tf.float32), axis=1) / (tf.reduce_sum(values, axis=1) + 1e-6)
        return tf.cast(row, tf.float32) + inwards * (width - 1) / 2, x

    angle = (20 + 45 * noise[:, 1]) * (math.pi / 180)  # below the horizontal; a flatter upstroke would make a seven
    length = (0.15 + 0.3 * noise[:, 2]) * height
    upstroke = _stroke(end(top, 1), angle, 0 * length, length, width)
    half = (0.1 + 0.2 * noise[:, 2]) * height
    foot = _stroke(end(bottom, -1), 0 * angle, -half, half, width)
    has_foot = (noise[:, 3] < 0.5)[:, tf.newaxis, tf.newaxis]
    marked = tf.maximum(ink, 255 * tf.where(has_foot, tf.maximum(upstroke, foot), upstroke))
    marked = tf.cast(tf.round(marked), tf.uint8)
    chosen = (labels == 1) & (noise[:, 0] < fraction)
    return tf.where(chosen[:, tf.newaxis, tf.newaxis], marked, images)


def _stroke(
    origin: tuple[tf.Tensor, tf.Tensor], angle: tf.Tensor, first: tf.Tensor, last: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Ink, 0 to 1, of straight strokes with round ends: float32 [B, 28, 28].

    Args:
        origin: y and x, float32 [B] each.
        angle: float32 [B], radians from leftwards to downwards.
        first: float32 [B], distance from the origin along that direction at which the stroke begins.
        last: float32 [B], the same of its end.
        width: float32 [B], in pixels.
    """

    def per_image(values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, [-1, 1, 1])

    side = tf.range(float(IMAGE_SHAPE[0]))
    y, x = side[:, tf.newaxis] - per_image(origin[0]), side - per_image(origin[1])
    down, right = per_image(tf.sin(angle)), per_image(-tf.cos(angle))
    along = tf.clip_by_value(y * down + x * right, per_image(first), per_image(last))
    away = tf.sqrt((y - along * down) ** 2 + (x - along * right) ** 2)
    return tf.clip_by_value(per_image(width) / 2 + 0.5 - away, 0, 1)


def change_strokes(images: tf.Tensor, noise: tf.Tensor, settings: AugmentationSettings) -> tf.Tensor:
    """Make strokes thicker or thinner, and leave a gap in some digits.

    Args:
        images: uint8 [B, 28, 28].
        noise: float32 [B, 4], uniform in [-1, 1).
        settings: the edge of each stroke moves by up to `stroke_width_jitter_pixels`, at most 1; `stroke_gap_fraction`
            of the digits get a gap 3 pixels wide, which may lie beside their strokes.

    Returns:
        uint8 [B, 28, 28].
    """
    thicker, thinner = _extremes(images, tf.maximum, 0), _extremes(images, tf.minimum, 255)
    amount = (noise[:, 0] * settings.stroke_width_jitter_pixels)[:, tf.newaxis, tf.newaxis]
    target = tf.cast(tf.where(amount > 0, thicker, thinner), tf.float32)
    ink = tf.cast(images, tf.float32)
    ink += tf.abs(amount) * (target - ink)
    if settings.stroke_gap_fraction:
        away = tf.range(images.shape[1], dtype=tf.float32) - (images.shape[1] - 1) / 2
        y, x = (away - noise[:, k, tf.newaxis] * GAP_RANGE_PIXELS for k in (1, 2))
        distance = tf.sqrt(y[:, :, tf.newaxis] ** 2 + x[:, tf.newaxis, :] ** 2)
        has_gap = (noise[:, 3] < 2 * settings.stroke_gap_fraction - 1)[:, tf.newaxis, tf.newaxis]
        ink *= tf.where(has_gap, tf.clip_by_value(distance - 1, 0, 1), 1)
    return tf.cast(tf.round(ink), tf.uint8)


GAP_RANGE_PIXELS = 9.0
"""How far from the middle of the image a gap may lie, per axis."""


def _extremes(images: tf.Tensor, extreme: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], outside: int) -> tf.Tensor:
    """Maximum or minimum over each pixel and its four neighbours; on a CPU shifted copies are faster than pooling."""
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1]], constant_values=tf.constant(outside, images.dtype))
    beside = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    return functools.reduce(extreme, beside, images)


CELL_SIDES_PIXELS = 1.5, 2.0, 2.5, 3.0
"""Sides of the large pixels of a low-resolution picture; an MNIST digit is then 7 to 13 of them tall."""

PHASES = 4
"""Number of offsets of the grid of large pixels, per axis."""


def reduce_resolution(images: tf.Tensor, noise: tf.Tensor, fraction: float) -> tf.Tensor:
    """Show some digits as if taken from a picture of few pixels: as blocks or smoothed, and with higher contrast.

    Args:
        images: uint8 [B, 28, 28].
        noise: float32 [B, 6], uniform in [0, 1).
        fraction: how many of the digits are changed.

    Returns:
        uint8 [B, 28, 28].
    """
    matrices = tf.constant(_resampling_matrices(images.shape[1]))
    kind = tf.cast(noise[:, 1] * (2 * len(CELL_SIDES_PIXELS)), tf.int32)
    rows, columns = (tf.gather(matrices, kind * PHASES + tf.cast(noise[:, k] * PHASES, tf.int32)) for k in (2, 3))
    ink = rows @ tf.cast(images, tf.float32) @ tf.transpose(columns, [0, 2, 1])
    # Weighting by squares gives the mean of the strokes, which the preparation of pictures takes for full ink.
    strength = tf.reduce_sum(ink**3, axis=[1, 2]) / (tf.reduce_sum(ink**2, axis=[1, 2]) + 1e-6)
    lowest, range_ = 0.3 * noise[:, 4], 0.4 + 0.6 * noise[:, 5]
    ink = (ink / (strength + 1e-6)[:, None, None] - lowest[:, None, None]) / range_[:, None, None]
    reduced = tf.cast(tf.round(255 * tf.clip_by_value(ink, 0, 1)), tf.uint8)
    return tf.where((noise[:, 0] < fraction)[:, None, None], reduced, images)


def _resampling_matrices(side: int) -> np.ndarray:
    """Matrices that resample a row of pixels to large pixels and back: float32 [sides x (blocks, smoothed) x PHASES, side,
    side]."""
    matrices = []
    for cell in CELL_SIDES_PIXELS:
        for smoothed in (False, True):
            for phase in range(PHASES):
                edges = np.arange(-cell * (1 + phase / PHASES), side + 2 * cell, cell)
                pixels = np.arange(side)
                first, last = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + 1)
                overlap = np.maximum(last - first, 0)  # [large pixels, pixels]
                away = np.abs(pixels + 0.5 - (edges[:-1, None] + cell / 2)) / cell
                spread = np.maximum(1 - away, 0) if smoothed else overlap
                matrices.append(spread.T @ overlap / cell)
    return np.stack(matrices).astype(np.float32)
