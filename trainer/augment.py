"""Training-only augmentation of whole batches, on the training device: another pen, gaps in strokes, a random affine map.

The noise of an image is a function of (seed, step, position in the global batch), so it does not depend on the number of
replicas, nor on where a run was started again.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Uniform ranges of the map: each value is drawn within +- the one given."""

    rotate_degrees: float = 0.0
    zoom: float = 0.0
    """Scale per axis, around 1."""
    shift_pixels: float = 0.0
    shear_degrees: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether every range is zero."""
        return not (self.rotate_degrees or self.zoom or self.shift_pixels or self.shear_degrees)


def affine_noise(seed: int, step: tf.Tensor, global_batch_size: int) -> tf.Tensor:
    """float32 [global_batch_size, 6], uniform in [-1, 1): one row per position in the global batch."""
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_uniform([global_batch_size, 6], seed=key, minval=-1.0, maxval=1.0)


def random_affine(images: tf.Tensor, noise: tf.Tensor, ranges: Affine) -> tf.Tensor:
    """Rotate, slant, zoom and shift each image around its centre.

    Args:
        images: uint8 [B, 28, 28].
        noise: float32 [B, 6] from `affine_noise`.
        ranges: how far each part of the map may go.

    Returns:
        uint8 [B, 28, 28]; what comes in from outside is paper (0).
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


def stroke_noise(seed: int, step: tf.Tensor, global_batch_size: int) -> tf.Tensor:
    """float32 [global_batch_size, 4], uniform in [-1, 1): a stream of its own beside `affine_noise`."""
    key = tf.stack([tf.constant(seed + 2**32, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_uniform([global_batch_size, 4], seed=key, minval=-1.0, maxval=1.0)


def random_strokes(images: tf.Tensor, noise: tf.Tensor, *, pen: float, gaps: float) -> tf.Tensor:
    """Write each digit with a thicker or thinner pen, and leave a gap in some.

    Args:
        images: uint8 [B, 28, 28].
        noise: float32 [B, 4] from `stroke_noise`.
        pen: how far the edge of each stroke may move, in pixels; at most 1.
        gaps: share of the digits that get a gap 3 pixels wide, which may lie beside their strokes.

    Returns:
        uint8 [B, 28, 28].
    """
    thicker, thinner = _extremes(images, tf.maximum, 0), _extremes(images, tf.minimum, 255)
    amount = (noise[:, 0] * pen)[:, tf.newaxis, tf.newaxis]
    goal = tf.cast(tf.where(amount > 0, thicker, thinner), tf.float32)
    ink = tf.cast(images, tf.float32)
    ink += tf.abs(amount) * (goal - ink)
    if gaps:
        away = tf.range(images.shape[1], dtype=tf.float32) - (images.shape[1] - 1) / 2
        y, x = (away - noise[:, k, tf.newaxis] * GAP_REACH for k in (1, 2))
        distance = tf.sqrt(y[:, :, tf.newaxis] ** 2 + x[:, tf.newaxis, :] ** 2)
        has_gap = (noise[:, 3] < 2 * gaps - 1)[:, tf.newaxis, tf.newaxis]
        ink *= tf.where(has_gap, tf.clip_by_value(distance - 1, 0, 1), 1)
    return tf.cast(tf.round(ink), tf.uint8)


GAP_REACH = 9.0
"""Gaps lie within so many pixels of the middle, per axis."""


def _extremes(images: tf.Tensor, extreme: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], outside: int) -> tf.Tensor:
    """The largest or smallest of each pixel and the four beside it; shifted copies are faster here than pooling."""
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1]], constant_values=tf.constant(outside, images.dtype))
    beside = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    return functools.reduce(extreme, beside, images)
