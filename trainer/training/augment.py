"""Training-only augmentation of whole batches, on the training device: ones with a flag, another pen, gaps in strokes, a
random affine map, and what is left of a digit in a coarse picture.

The noise of an image is a function of (seed, step, position in the global batch), so it does not depend on the number of
replicas, nor on where a run was started again.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from serving.contract import IMAGE_SHAPE


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
    return 2 * _uniform(seed, 0, step, [global_batch_size, 6]) - 1


def stroke_noise(seed: int, step: tf.Tensor, global_batch_size: int) -> tf.Tensor:
    """float32 [global_batch_size, 4], uniform in [-1, 1)."""
    return 2 * _uniform(seed, 1, step, [global_batch_size, 4]) - 1


def coarse_noise(seed: int, step: tf.Tensor, global_batch_size: int) -> tf.Tensor:
    """float32 [global_batch_size, 6], uniform in [0, 1)."""
    return _uniform(seed, 2, step, [global_batch_size, 6])


def flag_noise(seed: int, step: tf.Tensor, global_batch_size: int) -> tf.Tensor:
    """float32 [global_batch_size, 4], uniform in [0, 1)."""
    return _uniform(seed, 3, step, [global_batch_size, 4])


def _uniform(seed: int, stream: int, step: tf.Tensor, shape: list[int]) -> tf.Tensor:
    # A seed is below 2**32: each kind of augmentation draws from a stream of its own.
    key = tf.stack([tf.constant(seed + stream * 2**32, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_uniform(shape, seed=key)


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


def random_flags(images: tf.Tensor, labels: tf.Tensor, noise: tf.Tensor, share: float) -> tf.Tensor:
    """Give some of the ones the flag, and half of those the foot, that much of the world writes and MNIST hardly has.

    Args:
        images: uint8 [B, 28, 28].
        labels: [B]; only ones are changed.
        noise: float32 [B, 4] from `flag_noise`.
        share: of the ones that are changed.

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
        """The middle of the stroke, (y, x), half its width from its end."""
        values = tf.gather(ink, row, batch_dims=1)
        x = tf.reduce_sum(values * tf.cast(rows, tf.float32), axis=1) / (tf.reduce_sum(values, axis=1) + 1e-6)
        return tf.cast(row, tf.float32) + inwards * (width - 1) / 2, x

    angle = (20 + 45 * noise[:, 1]) * (math.pi / 180)  # below the horizontal: flatter is a seven
    length = (0.15 + 0.3 * noise[:, 2]) * height
    flag = _stroke(end(top, 1), angle, 0 * length, length, width)
    half = (0.1 + 0.2 * noise[:, 2]) * height
    foot = _stroke(end(bottom, -1), 0 * angle, -half, half, width)
    has_foot = (noise[:, 3] < 0.5)[:, tf.newaxis, tf.newaxis]
    marked = tf.maximum(ink, 255 * tf.where(has_foot, tf.maximum(flag, foot), flag))
    marked = tf.cast(tf.round(marked), tf.uint8)
    chosen = (labels == 1) & (noise[:, 0] < share)
    return tf.where(chosen[:, tf.newaxis, tf.newaxis], marked, images)


def _stroke(
    origin: tuple[tf.Tensor, tf.Tensor], angle: tf.Tensor, first: tf.Tensor, last: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Ink, 0 to 1, of straight strokes with round ends: float32 [B, 28, 28].

    Args:
        origin: y and x, float32 [B] each.
        angle: float32 [B], radians from leftwards to downwards.
        first: float32 [B], where along that direction from the origin the stroke begins.
        last: float32 [B], and ends.
        width: float32 [B].
    """

    def per_image(values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, [-1, 1, 1])

    side = tf.range(float(IMAGE_SHAPE[0]))
    y, x = side[:, tf.newaxis] - per_image(origin[0]), side - per_image(origin[1])
    down, right = per_image(tf.sin(angle)), per_image(-tf.cos(angle))
    along = tf.clip_by_value(y * down + x * right, per_image(first), per_image(last))
    away = tf.sqrt((y - along * down) ** 2 + (x - along * right) ** 2)
    return tf.clip_by_value(per_image(width) / 2 + 0.5 - away, 0, 1)


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


COARSE_CELLS = 1.5, 2.0, 2.5, 3.0
"""Widths of a coarse picture's pixels, in pixels of MNIST; its digits are 7 to 13 of them tall."""

PHASES = 4
"""How many ways the grid of a coarse picture may lie."""


def random_coarse(images: tf.Tensor, noise: tf.Tensor, share: float) -> tf.Tensor:
    """Show some digits as if read from a coarse picture: in large pixels, as blocks or smoothed, and with harder contrast.

    Args:
        images: uint8 [B, 28, 28].
        noise: float32 [B, 6] from `coarse_noise`.
        share: of the digits that are changed.

    Returns:
        uint8 [B, 28, 28].
    """
    grids = tf.constant(_coarse_grids(images.shape[1]))
    kind = tf.cast(noise[:, 1] * (2 * len(COARSE_CELLS)), tf.int32)
    rows, columns = (tf.gather(grids, kind * PHASES + tf.cast(noise[:, k] * PHASES, tf.int32)) for k in (2, 3))
    ink = rows @ tf.cast(images, tf.float32) @ tf.transpose(columns, [0, 2, 1])
    # The mean weighted by squares is that of the strokes: what a picture's preparation takes for full ink.
    strength = tf.reduce_sum(ink**3, axis=[1, 2]) / (tf.reduce_sum(ink**2, axis=[1, 2]) + 1e-6)
    lowest, range_ = 0.3 * noise[:, 4], 0.4 + 0.6 * noise[:, 5]
    ink = (ink / (strength + 1e-6)[:, None, None] - lowest[:, None, None]) / range_[:, None, None]
    coarse = tf.cast(tf.round(255 * tf.clip_by_value(ink, 0, 1)), tf.uint8)
    return tf.where((noise[:, 0] < share)[:, None, None], coarse, images)


def _coarse_grids(side: int) -> np.ndarray:
    """float32 [cells x (blocks, smoothed) x PHASES, side, side]: a column of pixels -> its large pixels -> as many pixels
    as before."""
    grids = []
    for cell in COARSE_CELLS:
        for smoothed in (False, True):
            for phase in range(PHASES):
                edges = np.arange(-cell * (1 + phase / PHASES), side + 2 * cell, cell)
                pixels = np.arange(side)
                first, last = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + 1)
                overlap = np.maximum(last - first, 0)  # [large pixels, pixels]
                away = np.abs(pixels + 0.5 - (edges[:-1, None] + cell / 2)) / cell
                spread = np.maximum(1 - away, 0) if smoothed else overlap
                grids.append(spread.T @ overlap / cell)
    return np.stack(grids).astype(np.float32)
