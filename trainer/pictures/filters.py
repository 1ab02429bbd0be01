"""Filters over images as matrix products and pooling, for the preparation of pictures inside the served graph.

Lengths are in pixels of the image that a function works on, light and ink in 0 to 1.
"""

import tensorflow as tf


def blur(values: tf.Tensor, sigma: float) -> tf.Tensor:
    """Gaussian blur of float32 [..., h, w] as two products with banded matrices, normalised at the edges."""
    height, width = tf.unstack(tf.shape(values)[-2:])
    return tf.matmul(tf.matmul(_gaussian(height, sigma), values), _gaussian(width, sigma), transpose_b=True)


def _gaussian(size: tf.Tensor, sigma: float) -> tf.Tensor:
    distance = tf.range(tf.cast(size, tf.float32))
    weights = tf.exp(-0.5 * ((distance[:, tf.newaxis] - distance) / sigma) ** 2)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def close(grey: tf.Tensor, window: int) -> tf.Tensor:
    """Morphological closing: what is dark and nowhere as wide as the window is filled; the edge of a shadow stays."""
    return -widest(-widest(grey, window), window)


def widest(values: tf.Tensor, window: int) -> tf.Tensor:
    """Maximum over a square around each of float32 [h, w]."""
    return tf.transpose(highest(tf.transpose(highest(values, window)), window))


def highest(values: tf.Tensor, window: int) -> tf.Tensor:
    """Maximum over a part of the column around each of float32 [h, w]. Rows as channels make pooling a vector's work."""
    return tf.nn.max_pool2d(values[tf.newaxis, :, tf.newaxis, :], [window, 1], 1, "SAME")[0, :, 0, :]


def bounds(inked: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Top, bottom, left and right of the true ones of bool [h, w], of which there must be one."""
    sides = []
    for axis in (1, 0):
        where = tf.cast(tf.where(tf.reduce_any(inked, axis))[:, 0], tf.float32)
        sides += [where[0], where[-1] + 1]
    top, bottom, left, right = sides
    return top, bottom, left, right


def scale_and_translate(
    values: tf.Tensor, size: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor, kernel: str
) -> tf.Tensor:
    return tf.raw_ops.ScaleAndTranslate(
        images=values[tf.newaxis, ..., tf.newaxis],
        size=size,
        scale=scale,
        translation=translation,
        kernel_type=kernel,
        antialias=True,
    )[0, ..., 0]


def contraharmonic(values: tf.Tensor) -> tf.Tensor:
    """The mean of values weighted by their squares: that of the large ones, however few."""
    return tf.reduce_sum(values**3) / (tf.reduce_sum(values**2) + 1e-12)


def main_axis(differences: tf.Tensor) -> tf.Tensor:
    """float32 [3], of length one: the direction in which float32 [3, n] lie, the largest of them above all."""
    weights = tf.reduce_sum(differences**2, axis=0)
    spread = tf.matmul(differences * weights, differences, transpose_b=True)
    spread = spread / (tf.linalg.trace(spread) + 1e-20)
    for _ in range(4):  # power iteration by squaring: the 16th power
        spread = spread @ spread
        spread = spread / (tf.linalg.trace(spread) + 1e-20)
    axis = tf.linalg.matvec(spread, tf.constant([0.57, 0.58, 0.58]))
    largest = tf.gather(spread, tf.argmax(tf.linalg.diag_part(spread)))
    axis = tf.where(tf.norm(axis) > 0.1 * tf.norm(largest), axis, largest)
    return tf.where(tf.norm(axis) > 1e-6, axis / (tf.norm(axis) + 1e-12), tf.constant([0.577, 0.577, 0.577]))
