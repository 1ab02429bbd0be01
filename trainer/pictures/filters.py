"""Blurs, resampling, quantiles and means, as TensorFlow ops that run inside the served graph.

Lengths are in pixels of the image that a function works on.
"""

import tensorflow as tf

BLUR_MAX_SIDE = 256
"""Greatest height and width, in pixels, that `gaussian_blur` accepts."""


def split_channels(pixels: tf.Tensor) -> tf.Tensor:
    """Return pixels [..., 3] as [3, ...]. `tf.transpose` takes more than twice as long."""
    return tf.stack(tf.unstack(pixels, 3, axis=-1))


def gaussian_blur(values: tf.Tensor, sigma: float, rows: tf.Tensor | None = None) -> tf.Tensor:
    """Blur float32 [..., h, w] by two products with banded matrices, which are normalised at the edges.

    Args:
        values: float32 [..., h, w].
        sigma: standard deviation of the blur, in pixels.
        rows: int32 [n], indices of the rows to return; None returns all.

    Returns:
        float32 [..., n, w].
    """
    height, width = tf.unstack(tf.shape(values)[-2:])
    down, across = _gaussian_matrix(height, sigma), _gaussian_matrix(width, sigma)
    if rows is not None:
        down = tf.gather(down, rows)
    return tf.matmul(tf.matmul(down, values), across, transpose_b=True)


def _gaussian_matrix(size: tf.Tensor, sigma: float) -> tf.Tensor:
    # A slice of the largest matrix, whose exponentials TensorFlow computes once, when it loads the graph.
    distance = tf.range(float(BLUR_MAX_SIDE))
    weights = tf.exp(-0.5 * ((distance[:, tf.newaxis] - distance) / sigma) ** 2)[:size, :size]
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def scale_and_translate(
    values: tf.Tensor, size: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor, kernel: str
) -> tf.Tensor:
    """Resample images [N, h, w, channels] with antialiasing: point p of the input goes to `scale * p + translation`.

    Args:
        values: any number type.
        size: int32 [2], height and width of the result.
        scale: float32 [2], y before x.
        translation: float32 [2].
        kernel: `kernel_type` of the op ScaleAndTranslate.

    Returns:
        float32 [N, *size, channels].
    """
    return tf.raw_ops.ScaleAndTranslate(
        images=values,
        size=size,
        scale=scale,
        translation=translation,
        kernel_type=kernel,
        antialias=True,
    )


def nth_smallest(values: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """Return the n-th smallest value, n from 0, along the last dimension. Sorting takes ten times as long."""
    return tf.raw_ops.NthElement(input=values, n=n)


def median(values: tf.Tensor) -> tf.Tensor:
    """Return the median of all values, a scalar; of an even number of them, the upper one."""
    flat = tf.reshape(values, [-1])
    return nth_smallest(flat, tf.size(flat) // 2)


def contraharmonic_mean(values: tf.Tensor) -> tf.Tensor:
    """Return the mean of values weighted by their squares, a scalar. A few large values outweigh many small ones."""
    squares = values**2
    return tf.reduce_sum(squares * values) / (tf.reduce_sum(squares) + 1e-12)
